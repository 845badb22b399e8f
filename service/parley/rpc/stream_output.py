"""The outgoing side of a stream: one write at a time; events that are added meanwhile leave in one message."""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Sequence
from contextvars import copy_context

from google.api.httpbody_pb2 import HttpBody

from parley.core.errors import ParleyError
from parley.core.streaming.plain_text import PlainText
from parley.rpc import sse
from parley.rpc.call import current
from parley.rpc.interceptors import Context
from parley.rpc.metadata import headers
from parley.rpc.unknown_fields import fill_structs
from parley.v1.chat_completions_pb2 import ChatCompletionChunk

_MAX_PENDING = 64 * 1024  # bytes that may wait for a slow reader before the stream waits, too


class StreamOutput(ABC):
    """Writes the messages of one stream.

    A task writes what was added as soon as the handler waits for something else. What was not written when the handler
    ends is returned by `finish`, because gRPC sends a returned message together with the status: an answer that is
    complete at once costs one write.

    Attributes:
        started: Whether anything was added: from then on the stream can no longer fail with a status alone.
        last: The latest chunk.
        last_added: When something was added, in seconds of the event loop's clock.
    """

    def __init__(self, context: Context) -> None:
        self.started = False
        self.last: ChatCompletionChunk | None = None
        self._context = context
        self._call = current()
        self._loop = asyncio.get_running_loop()
        self.last_added = self._loop.time()
        self._variables = copy_context()  # of the call, also if a keep-alive comment starts the task
        self._pending: deque[bytes] = deque()
        self._size = 0
        self._task: asyncio.Task[None] | None = None
        self._is_writing = False
        self._is_ending = False
        self._failure: Exception | None = None

    @abstractmethod
    def _encode(self, chunks: Sequence[ChatCompletionChunk]) -> Iterable[bytes]:
        """Returns the chunks as bytes; none for chunks that the caller does not get."""

    @abstractmethod
    def _take(self) -> bytes:
        """Removes and returns the next message."""

    @property
    def is_full(self) -> bool:
        """Whether the reader is slow, so that `drain` must be awaited before more is added."""
        return self._size > _MAX_PENDING

    def add(self, chunks: Sequence[ChatCompletionChunk]) -> None:
        """Adds chunks. The first ones have the session of the headers. Raises the failure of an earlier write."""
        if self._failure is not None:
            raise self._failure
        if chunks:
            self.last = chunks[-1]
            for data in self._encode(chunks):
                self._add(data)

    async def drain(self) -> None:
        """Waits until everything is written. Raises the failure of a write: InternalError after a disconnection."""
        while self._task is not None:
            await asyncio.wait({self._task})  # a cancellation of the handler does not cut a message off
        if self._failure is not None:
            raise self._failure

    async def finish(self) -> bytes:
        """Writes all messages but the last one, which it returns. Nothing may be added after it.

        Something must have been added since the handler last waited: else the task may have written all.
        """
        self._is_ending = True
        if self._is_writing:
            await self.drain()
        if not self._call.headers_sent:
            await headers.send_with_answer(self._call, self._context, self.last)
        message = self._take()
        while self._pending:
            await self._write(message)
            message = self._take()
        return message

    def close(self) -> None:
        """Stops writing."""
        if self._task is not None:
            self._task.cancel()

    def _add(self, data: bytes) -> None:
        self.started = True
        self.last_added = self._loop.time()
        self._pending.append(data)
        self._size += len(data)
        if self._task is None:
            self._task = self._loop.create_task(self._write_pending(), context=self._variables)

    async def _write_pending(self) -> None:
        self._is_writing = True
        try:
            while self._pending and not self._is_ending:
                if not self._call.headers_sent:
                    await headers.send_with_answer(self._call, self._context, self.last)
                await self._write(self._take())
        except Exception as error:  # noqa: BLE001 - the handler raises it
            self._failure = error
        finally:
            self._is_writing = False
            self._task = None

    async def _write(self, message: bytes) -> None:
        """Writes a message. `writing_since` lets the server find callers that do not read."""
        self._call.writing_since = self._loop.time()
        await self._context.write(message)
        self._call.writing_since = None


class MessageOutput(StreamOutput):
    """Writes each chunk as a message."""

    def _encode(self, chunks: Sequence[ChatCompletionChunk]) -> Iterable[bytes]:
        if not isinstance(chunks, PlainText):
            for chunk in chunks:
                fill_structs(chunk)
        return [chunk.SerializeToString() for chunk in chunks]

    def _take(self) -> bytes:
        message = self._pending.popleft()
        self._size -= len(message)
        return message


class EventOutput(StreamOutput):
    """Writes chunks as server-sent events, several in one message."""

    def __init__(self, context: Context, writer: sse.EventWriter) -> None:
        super().__init__(context)
        self._writer = writer

    def add_error(self, error: ParleyError, form: str | None) -> None:
        """Adds the event of a failure; see `sse.error_event`."""
        self._add(sse.error_event(error, form))

    def add_keep_alive(self) -> None:
        """Adds a keep-alive comment, unless the call may still be rejected, which needs the headers unsent."""
        if self._call.outcome.rate_limits is not None:
            self._add(sse.KEEP_ALIVE)

    def _encode(self, chunks: Sequence[ChatCompletionChunk]) -> Iterable[bytes]:
        events = self._writer.events(chunks)
        return (events,) if events else ()

    def _take(self) -> bytes:
        data = b"".join(self._pending)
        self._pending.clear()
        self._size = 0
        message: bytes = HttpBody(content_type="text/event-stream", data=data).SerializeToString()
        return message
