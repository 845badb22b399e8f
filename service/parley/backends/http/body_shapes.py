"""Handles bodies of the other format: JSON in response to a streaming request, events to a non-streaming one.

The first bytes determine the format; the content type is ignored because servers often set it wrong.
"""

from collections.abc import Callable
from typing import Protocol

from parley.backends.errors.classifier import ErrorInBody, MalformedResponse
from parley.core.ports.plain_text import StreamPart
from parley.core.streaming.accumulator import CompletionAccumulator
from parley.core.streaming.replay import choice_chunks
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk

Complete = Callable[[bytes], ChatCompletion]
"""Parses a complete JSON response. Raises MalformedResponse, ErrorInBody."""

MAX_ANSWER_SIZE = 64 * 1024 * 1024
"""Maximum size of a JSON response, in bytes."""

_BLANK = b" \t\r\n\xef\xbb\xbf"
_JSON = (b"{", b"[")
_EVENTS = (b"data:", b"event:", b"id:", b"retry:", b":")


class Reader(Protocol):
    """Parses the stream of one answer.

    Attributes:
        started: Whether the first token has arrived.
        ended: Whether parsing has ended: after the vendor's end marker, at the end of the bytes, or after an error.
        failure: The error, if any; stored rather than raised so that output before it is still delivered.
    """

    started: bool
    ended: bool
    failure: MalformedResponse | ErrorInBody | None

    @property
    def is_complete(self) -> bool:
        """Whether the answer is complete, even if the stream has not ended."""
        ...

    def feed(self, data: bytes) -> StreamPart | None:
        """Returns the output of these bytes as one part, or None; b"" marks the end of the stream."""
        ...


def are_events(data: bytes) -> bool:
    """Returns whether a complete body consists of server-sent events."""
    return data[:256].lstrip(_BLANK).startswith(_EVENTS)


def accumulate(reader: Reader, data: bytes) -> ChatCompletion:
    """Parses a complete body of events as one answer.

    Raises:
        MalformedResponse: If the answer is malformed or incomplete.
        ErrorInBody: If an event is an error.
    """
    accumulator = CompletionAccumulator(ChatCompletion())
    for piece in (data, b""):
        part = None if reader.ended else reader.feed(piece)
        if part is not None:
            accumulator.add(part)
    if not reader.is_complete:
        raise reader.failure or MalformedResponse("the events ended without a finish reason or an end marker")
    return accumulator.completion()


def reader_for(reader: Reader, data: bytes, complete: Complete) -> Reader | None:
    """Returns the parser for a body that starts with `data`.

    Returns:
        `reader` for events, a CompletionReader for JSON; None if more bytes are needed.
    """
    first = data.lstrip(_BLANK)
    if not first:
        return None
    return CompletionReader(complete) if first.startswith(_JSON) else reader


class CompletionReader:
    """Parses a JSON response to a streaming request."""

    def __init__(self, complete: Complete) -> None:
        self.started = False
        self.ended = False
        self.is_complete = False
        self.failure: MalformedResponse | ErrorInBody | None = None
        self._complete = complete
        self._data = bytearray()

    def feed(self, data: bytes) -> ChatCompletionChunk | None:
        """Buffers the bytes; returns the answer as one chunk at the end of the stream, b""."""
        self._data += data
        if len(self._data) > MAX_ANSWER_SIZE:
            self._fail(MalformedResponse(f"the answer is longer than {MAX_ANSWER_SIZE} bytes"))
        elif not data:
            return self._end()
        return None

    def _fail(self, failure: MalformedResponse | ErrorInBody) -> None:
        self.failure, self.ended = failure, True

    def _end(self) -> ChatCompletionChunk | None:
        try:
            answer = self._complete(bytes(self._data))
        except (MalformedResponse, ErrorInBody) as error:
            self._fail(error)
            return None
        self.started = self.is_complete = self.ended = True
        return _as_chunk(answer)


def _as_chunk(answer: ChatCompletion) -> ChatCompletionChunk:
    chunk = ChatCompletionChunk(
        choices=[choice_chunk for choice in answer.choices for choice_chunk in choice_chunks(choice)]
    )
    for field, value in answer.ListFields():
        if field.name == "choices":
            continue
        if field.message_type is None:
            setattr(chunk, field.name, value)
        else:
            getattr(chunk, field.name).CopyFrom(value)
    return chunk
