"""Bodies of another shape than was asked for: JSON in answer to a stream, events in answer to a whole answer.

A body is read by what it is; its content type is not asked, as it is wrong as often.
"""

from collections.abc import Callable
from typing import Protocol

from parley.backends.errors.classifier import ErrorInBody, MalformedResponse
from parley.core.streaming.accumulator import CompletionAccumulator
from parley.core.streaming.replay import choice_chunks
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk

Complete = Callable[[bytes], ChatCompletion]
"""Reads a whole answer. Raises MalformedResponse, ErrorInBody."""

MAX_ANSWER_SIZE = 64 * 1024 * 1024
"""The longest JSON of an answer that is read into memory, in bytes."""

_BLANK = b" \t\r\n\xef\xbb\xbf"
_JSON = (b"{", b"[")
_EVENTS = (b"data:", b"event:", b"id:", b"retry:", b":")


class Reader(Protocol):
    """Reads the stream of one answer.

    `started` tells that the first token has come, `ended` that there is nothing more to read: after the vendor's own
    end, at the end of the bytes, or after an error. That is kept in `failure`, so that what came before it can still be
    delivered.
    """

    started: bool
    ended: bool
    failure: MalformedResponse | ErrorInBody | None

    @property
    def is_complete(self) -> bool:
        """Tells whether the answer is whole as far as it has come."""
        ...

    def feed(self, data: bytes) -> ChatCompletionChunk | None:
        """Returns what these bytes add up to; None where that is nothing. b"" is the end of the stream."""
        ...


def are_events(data: bytes) -> bool:
    """Tells whether a whole body is a stream of server-sent events."""
    return data[:256].lstrip(_BLANK).startswith(_EVENTS)


def accumulate(reader: Reader, data: bytes) -> ChatCompletion:
    """Reads a whole stream of events as one answer. Raises MalformedResponse, ErrorInBody."""
    accumulator = CompletionAccumulator(ChatCompletion())
    for part in (data, b""):
        chunk = None if reader.ended else reader.feed(part)
        if chunk is not None:
            accumulator.add(chunk)
    if not reader.is_complete:
        raise reader.failure or MalformedResponse("the events end without saying that the answer is whole")
    return accumulator.completion()


def reader_for(reader: Reader, data: bytes, complete: Complete) -> Reader | None:
    """Returns what reads a body that begins with these bytes: `reader`, or a WholeReader; None: not known yet."""
    first = data.lstrip(_BLANK)
    if not first:
        return None
    return CompletionReader(complete) if first.startswith(_JSON) else reader


class CompletionReader:
    """Reads a whole answer that comes where a stream was expected."""

    def __init__(self, complete: Complete) -> None:
        self.started = False
        self.ended = False
        self.is_complete = False
        self.failure: MalformedResponse | ErrorInBody | None = None
        self._complete = complete
        self._data = bytearray()

    def feed(self, data: bytes) -> ChatCompletionChunk | None:
        """Returns the answer at the end of the bytes, which is b""."""
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
