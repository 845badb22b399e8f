"""A synchronous stream, which survives broken connections."""

import time
from collections.abc import Callable, Generator, Iterator
from types import TracebackType
from typing import Any, Self

import grpc

from parley_client.calls import Call
from parley_client.completion import Completion, completion
from parley_client.errors import BrokenStreamError, CancelledCallError
from parley_client.metadata import by_name
from parley_client.resumption import Delivery, MismatchError
from parley_client.v1.chat_completions_pb2 import ChatCompletionChunk, CreateChatCompletionRequest

_POLL = 0.05  # seconds


class Stream:
    """Yields the chunks of an answer, and has the joined answer at its end.

    If the stream breaks, the call is repeated under its idempotency key. What was delivered is skipped in the repeated
    answer. If the two differ, the stream fails with BrokenStreamError.

    The `with` block cancels what is left of the call.
    """

    def __init__(
        self,
        rpc: Callable[..., Any],
        request: CreateChatCompletionRequest,
        start: Callable[[], Call],
    ) -> None:
        self._rpc = rpc
        self._request = request
        self._start = start
        self.on_session: Callable[[str], object] | None = None
        self._delivery = Delivery()
        self._running: Any = None
        self._cancelled = False
        self._completion: Completion | None = None
        self._chunks = self._iterate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.cancel()
        self._chunks.close()

    def __iter__(self) -> Iterator[ChatCompletionChunk]:
        return self._chunks

    def __next__(self) -> ChatCompletionChunk:
        return next(self._chunks)

    def text(self) -> Iterator[str]:
        """Yields the text of the first choice as it arrives."""
        for chunk in self._chunks:
            for choice in chunk.choices:
                if choice.index == 0 and choice.delta.content:
                    yield choice.delta.content

    def result(self) -> Completion:
        """Returns the joined answer; reads what is left of the stream first. Raises ParleyError."""
        for _ in self._chunks:
            pass
        if self._completion is None:
            raise CancelledCallError("the stream was closed before its end", grpc.StatusCode.CANCELLED)
        return self._completion

    def cancel(self) -> None:
        """Cancels the call. A signal handler may call this."""
        self._cancelled = True
        if self._running is not None:
            self._running.cancel()

    def _iterate(self) -> Generator[ChatCompletionChunk, None, None]:
        with self._start() as call:
            while self._completion is None:
                try:
                    yield from self._attempt(call)
                    self._finish(call)
                except grpc.RpcError as error:
                    partial = Completion(self._delivery.delivered())
                    self._wait(call.failed(error, partial, retryable=not self._cancelled))
                    self._delivery.restart()

    def _attempt(self, call: Call) -> Generator[ChatCompletionChunk, None, None]:
        self._running = self._rpc(self._request, timeout=call.remaining(), metadata=call.metadata)
        if self._cancelled:
            self._running.cancel()
        try:
            for chunk in self._running:
                if chunk.HasField("session_id") and self.on_session is not None:
                    self.on_session(chunk.session_id)
                new = self._delivery.add(chunk)
                if new is not None:
                    yield new
            self._delivery.finish()
        except MismatchError as error:
            raise call.fail(BrokenStreamError.of(Completion(self._delivery.delivered()))) from error
        finally:
            self._running.cancel()

    def _finish(self, call: Call) -> None:
        initial, trailing = by_name(self._running.initial_metadata()), by_name(self._running.trailing_metadata())
        answer = self._delivery.completion()
        self._completion = completion(answer, initial, trailing)
        call.succeeded(answer, trailing)

    def _wait(self, seconds: float) -> None:
        """Waits before the next attempt. Polls, as a lock would not be safe in a signal handler that cancels."""
        end = time.monotonic() + seconds
        while not self._cancelled and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, _POLL))
