"""The outgoing side of a stream: one write at a time; events that are added meanwhile leave in one message."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from parley.core.errors import ParleyError
from parley.core.ports.plain_text import Batch, PlainText
from parley.core.streaming.plain_text import chunk_bytes
from parley.rpc import sse
from parley.rpc.call import current
from parley.rpc.call_handler import Context
from parley.rpc.http_body import http_body
from parley.rpc.metadata import headers
from parley.rpc.unknown_fields import filled
from parley.v1.chat_completions_pb2 import ChatCompletionChunk

_event_body = http_body("text/event-stream")
MAX_PENDING = 64 * 1024  # bytes that may wait for a slow reader before the stream waits, too


class StreamOutput(ABC):
    """Writes the messages of one stream.

    Args:
        context: The context of the call.
        encode: Returns chunks as bytes; nothing for chunks that the caller does not get.
        encode_text: Returns a text as bytes.
        as_message: Returns such bytes as a message.

    Plain text leaves at once, everything else as soon as the handler waits for something else. What was not written
    when the handler ends is returned by `finish`, because gRPC sends a returned message together with the status: an
    answer that is complete at once costs one write.

    The writes are coroutines that this object drives itself: a task for each token would take longer than its event.

    Attributes:
        started: Whether anything was added: from then on the stream can no longer fail with a status alone.
        size: The bytes that wait for the reader. With more than MAX_PENDING it is slow: `drain` must be awaited before
            more is added.
        last_added: When something was added, in seconds of the event loop's clock.
    """

    __slots__ = (
        "_as_message",
        "_call",
        "_context",
        "_encode",
        "_encode_text",
        "_failure",
        "_first",
        "_is_ending",
        "_is_scheduled",
        "_loop",
        "_pending",
        "_writing",
        "_written",
        "last_added",
        "size",
        "started",
    )

    def __init__(
        self,
        context: Context,
        encode: Callable[[Sequence[ChatCompletionChunk]], Sequence[bytes]],
        encode_text: Callable[[PlainText], bytes],
        as_message: Callable[[bytes], bytes],
    ) -> None:
        self.started = False
        self._encode, self._encode_text, self._as_message = encode, encode_text, as_message
        self._first: ChatCompletionChunk | None = None
        self._context = context
        self._call = current()
        self._loop = asyncio.get_running_loop()
        self.last_added = self._loop.time()
        self._pending: list[bytes] = []  # a deque takes 700 bytes, of each waiting stream
        self.size = 0
        self._writing: Coroutine[Any, Any, None] | None = None
        self._written: asyncio.Future[None] | None = None
        self._is_scheduled = False
        self._is_ending = False
        self._failure: Exception | None = None

    @abstractmethod
    def _take(self) -> bytes:
        """Removes and returns the next message."""

    def add(self, batch: Batch) -> None:
        """Adds chunks or a text. A text is written at once if nothing else waits; chunks wait until the handler does.

        The first chunks have the session of the headers. Raises the failure of an earlier write.
        """
        if self._failure is not None:
            raise self._failure
        if not isinstance(batch, PlainText):
            if batch and not self._call.headers_sent:
                self._first = batch[0]
            self._add(self._encode(batch))
        elif self._writing is not None or self._pending or not self._call.headers_sent:
            self._add((self._encode_text(batch),))
        else:
            self.started = True
            self.last_added = self._call.writing_since = self._loop.time()
            self._writing = self._context.write(self._as_message(self._encode_text(batch)))
            self._continue_write()

    async def drain(self) -> None:
        """Waits until everything is written. Raises the failure of a write: InternalError after a disconnection."""
        while self._writing is not None or (self._pending and not self._is_ending):
            self._start_write()
            await self._wait_written()
        if self._failure is not None:
            raise self._failure

    async def finish(self) -> bytes:
        """Writes all messages but the last one, which it returns. Nothing may be added after it.

        Something must have been added since the handler last waited: else all may have been written.
        """
        self._is_ending = True
        await self._wait_written()
        if self._failure is not None:
            raise self._failure
        if not self._call.headers_sent:
            await self._send_headers()
        message = self._take()
        while self._pending:
            self._call.writing_since = self._loop.time()
            await self._context.write(message)
            message = self._take()
        self._call.writing_since = None
        return message

    def close(self) -> None:
        """Starts no further write."""
        self._is_ending = True

    def _add(self, messages: Sequence[bytes]) -> None:
        """Adds messages, if there are any."""
        if not messages:
            return
        self.started = True
        self.last_added = self._loop.time()
        for message in messages:
            self._pending.append(message)
            self.size += len(message)
        if self._writing is None and not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._start_write)

    def _start_write(self) -> None:
        """Writes the next message, unless a write is in progress. `writing_since` shows callers that do not read."""
        self._is_scheduled = False
        if self._writing is not None or not self._pending or self._is_ending:
            return
        if self._call.headers_sent:
            self._call.writing_since = self._loop.time()
            self._writing = self._context.write(self._take())
        else:
            self._writing = self._write_first()
        self._continue_write()

    def _continue_write(self, _: object = None) -> None:
        """Runs the write until it waits for gRPC, as a task does."""
        assert self._writing is not None  # noqa: S101 - only a write in progress is continued
        try:
            future = self._writing.send(None)
        except StopIteration:
            pass
        except Exception as error:  # noqa: BLE001 - the handler raises it
            self._failure = error
        else:
            future._asyncio_future_blocking = False  # noqa: SLF001 - what a task does with the future of an `await`
            future.add_done_callback(self._continue_write)
            return
        self._writing = self._call.writing_since = None
        if self._failure is not None:
            self._pending.clear()
        elif self._pending:
            self._start_write()
        if self._written is not None and not self._written.done():
            self._written.set_result(None)

    async def _wait_written(self) -> None:
        """Waits for the write in progress; a cancellation of the handler does not cut it off."""
        if self._writing is not None:
            self._written = self._loop.create_future()
            await self._written

    async def _write_first(self) -> None:
        await self._send_headers()
        self._call.writing_since = self._loop.time()
        await self._context.write(self._take())

    async def _send_headers(self) -> None:
        session_id = self._first.session_id if self._first else self._known_session()
        await headers.send_with_answer(self._call, self._context, session_id)
        self._first = None

    def _known_session(self) -> str | None:
        """Returns the id of the call's session before its first chunk; None without one, or if it is not known yet."""
        running = self._call.outcome.running
        if running is None:
            return None
        return running.lease.session_id or (running.request.session_id if running.execution is None else None)


class MessageOutput(StreamOutput):
    """Writes each chunk as a message."""

    __slots__ = ()

    def __init__(self, context: Context) -> None:
        super().__init__(context, _messages, chunk_bytes, bytes)

    def _take(self) -> bytes:
        message = self._pending.pop(0)
        self.size -= len(message)
        return message


class EventOutput(StreamOutput):
    """Writes chunks as server-sent events, several in one message."""

    __slots__ = ()

    def __init__(self, context: Context, writer: sse.EventWriter) -> None:
        super().__init__(context, writer.events, writer.text_event, _event_body)

    def add_error(self, error: ParleyError, form: str | None) -> None:
        """Adds the event of a failure; see `sse.error_event`."""
        self._add((sse.error_event(error, form),))

    def add_keep_alive(self) -> None:
        """Adds a keep-alive comment, unless the headers must not be sent yet.

        The call may still be rejected, or the id of a new session, which is in the headers, is not known.
        """
        outcome = self._call.outcome
        if outcome.rate_limits is None or outcome.running is None:
            return
        if outcome.running.execution is not None or outcome.running.request.session_id:
            self._add((sse.KEEP_ALIVE,))

    def _take(self) -> bytes:
        data = b"".join(self._pending)
        self._pending.clear()
        self.size = 0
        return self._as_message(data)


def _messages(chunks: Sequence[ChatCompletionChunk]) -> Sequence[bytes]:
    return [filled(chunk) for chunk in chunks]
