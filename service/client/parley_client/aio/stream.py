"""An asynchronous stream, which survives broken connections."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self

import grpc

from parley_client.calls import Call
from parley_client.completion import Completion, completion
from parley_client.errors import BrokenStreamError, CancelledCallError
from parley_client.metadata import by_name
from parley_client.resumption import Delivery, MismatchError
from parley_client.v1.chat_completions_pb2 import ChatCompletionChunk, CreateChatCompletionRequest


class AsyncStream:
    """Yields the chunks of an answer, and has the joined answer at its end. See `Stream`.

    The `async with` block cancels what is left of the call.
    """

    def __init__(
        self, rpc: Callable[..., Any], request: CreateChatCompletionRequest, start: Callable[[], Call]
    ) -> None:
        self._rpc = rpc
        self._request = request
        self._start = start
        self.on_session: Callable[[str], object] | None = None
        self._delivery = Delivery()
        self._completion: Completion | None = None
        self._chunks = self._iterate()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._chunks.aclose()

    def __aiter__(self) -> AsyncIterator[ChatCompletionChunk]:
        return self._chunks

    async def text(self) -> AsyncIterator[str]:
        """Yields the text of the first choice as it arrives."""
        async for chunk in self._chunks:
            for choice in chunk.choices:
                if choice.index == 0 and choice.delta.content:
                    yield choice.delta.content

    async def result(self) -> Completion:
        """Returns the joined answer; reads what is left of the stream first. Raises ParleyError."""
        async for _ in self._chunks:
            pass
        if self._completion is None:
            raise CancelledCallError("the stream was closed before its end", grpc.StatusCode.CANCELLED)
        return self._completion

    async def _iterate(self) -> AsyncGenerator[ChatCompletionChunk, None]:
        with self._start() as call:
            while self._completion is None:
                try:
                    async with aclosing(self._attempt(call)) as chunks:
                        async for chunk in chunks:
                            yield chunk
                except grpc.RpcError as error:
                    await asyncio.sleep(call.failed(error, Completion(self._delivery.delivered())))
                    self._delivery.restart()

    async def _attempt(self, call: Call) -> AsyncGenerator[ChatCompletionChunk, None]:
        running = self._rpc(self._request, timeout=call.remaining(), metadata=call.metadata)
        try:
            async for chunk in running:
                if chunk.HasField("session_id") and self.on_session is not None:
                    self.on_session(chunk.session_id)
                new = self._delivery.add(chunk)
                if new is not None:
                    yield new
            self._delivery.finish()
            await self._finish(call, running)
        except MismatchError as error:
            raise call.fail(BrokenStreamError.of(Completion(self._delivery.delivered()))) from error
        finally:
            running.cancel()

    async def _finish(self, call: Call, running: Any) -> None:
        initial, trailing = by_name(await running.initial_metadata()), by_name(await running.trailing_metadata())
        answer = self._delivery.completion()
        self._completion = completion(answer, initial, trailing)
        call.succeeded(answer, trailing)
