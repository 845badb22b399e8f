"""Types and helpers of the contract suite for backends.

A vendor implements `Vendor`: it runs its server, creates its backend, and expresses the suite's scenarios in its own
API as scripts for its server.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import AbstractContextManager, aclosing
from enum import Enum
from typing import Any, Protocol

import pytest
from google.protobuf import json_format
from yarl import URL

from parley.backends.http.client import Endpoint
from parley.backends.http.request_heads import RequestHeads
from parley.config import Timeouts, UpstreamRequests
from parley.core.errors import ParleyError, UpstreamError
from parley.core.ports import Backend, UpstreamCall
from parley.core.streaming.accumulator import CompletionAccumulator
from parley.core.streaming.plain_text import as_chunk
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk, CreateChatCompletionRequest
from parley.v1.message_pb2 import Message
from tests.upstream import Cut, Delay, Gate, Signal, Stall

NOT_AVAILABLE = 'The model "myapp-123" is not available; try again later'
KEY = "tgp_v1_the.secret+of/this=test"
QUESTION = {"model": "myapp-123", "messages": [{"role": "user", "content": "hi"}]}


class Mark(Enum):
    """Events of a stream that each vendor encodes differently."""

    END = "the end of a complete answer: finish reason, and a usage of 9 + 3 tokens"
    FAULT = "an error with the message `the GPU is gone`"
    TOO_LONG = "an error for a conversation that exceeds the context"


Piece = str | bytes | Mark | Signal | Delay | Cut | Stall
"""A step of a stream: text; raw bytes (HTTP vendors only); a mark; or a timing or connection event."""


class Received(Protocol):
    """A call as received by the vendor's server. `closed` is set when the client abandons the call."""

    @property
    def closed(self) -> Signal:
        """Set when the client closes the connection or cancels the call."""
        ...


class Upstream(Protocol):
    """A vendor's server, which follows scripts in the given order."""

    @property
    def address(self) -> str:
        """The address on which it listens, `host:port`."""
        ...

    @property
    def connections(self) -> int:
        """The number of accepted connections."""
        ...

    @property
    def requests(self) -> Sequence[Received]:
        """The received calls."""
        ...

    def answer(self, *scripts: Any) -> None:
        """Adds scripts, one for each expected call."""
        ...

    async def arrives(self, index: int = 0) -> Received:
        """Waits for a call."""
        ...


class Vendor(Protocol):
    """A vendor's server and backend, and its encoding of each scenario."""

    @property
    def name(self) -> str:
        """The id that pytest shows."""
        ...

    def serve(self) -> AbstractContextManager[Upstream]:
        """Runs a server on a free port."""
        ...

    def backend(self, address: str) -> Backend:
        """Creates the backend for a server at `host:port`, with the key KEY."""
        ...

    def requested_model(self, received: Any) -> str:
        """Returns the model that a call requested."""
        ...

    def complete_answer(self, text: str) -> Any:
        """Scripts a complete response with a usage of 9 + 3 tokens."""
        ...

    def stream(self, *pieces: Piece) -> Any:
        """Scripts a stream: its start and the pieces. Without Mark.END the answer is incomplete."""
        ...

    def rejection(self, kind: type[UpstreamError], message: str, retry_after: float | None = None) -> Any:
        """Scripts the rejection that maps to the error `kind`; its message contains `words`."""
        ...

    def silence(self) -> Any:
        """Scripts a server that accepts the call and never responds."""
        ...

    def connection_closed(self) -> Any:
        """Scripts a server that accepts the call and closes the connection."""
        ...


def request(**fields: Any) -> CreateChatCompletionRequest:
    """Creates a request from its JSON, by default with one short message."""
    return json_format.ParseDict(QUESTION | fields, CreateChatCompletionRequest())


def call(
    *, deadline: float | None = None, timeouts: dict[str, float] | None = None, continues: bool = False, **fields: Any
) -> UpstreamCall:
    """Creates a call of the target `target-1`. `deadline` is in seconds from now; `timeouts` overrides defaults."""
    until = None if deadline is None else asyncio.get_running_loop().time() + deadline
    return UpstreamCall(request(**fields), "target-1", Timeouts(**(timeouts or {})), until, continues)


def endpoint_for(url: URL | str, **options: Any) -> Endpoint:
    """Creates the client for a URL, without headers of its own; `options` are those of the pool."""
    settings = UpstreamRequests()
    return Endpoint(RequestHeads(str(url), {}, settings), settings, **options)


def words(error: ParleyError | None) -> str:
    """Returns the words of a backend that an error has kept, which are never logged, after those for the log."""
    assert error is not None
    if not error.is_quoted:
        assert "because" not in f"{error.message} {error.cause}"
    return f"{error.message if error.is_quoted else ''} {getattr(error, 'detail', None)}"


async def stream_of(backend: Backend, upstream_call: UpstreamCall) -> AsyncGenerator[ChatCompletionChunk, None]:
    """Yields a stream in chunks. Closing it closes the stream."""
    async with aclosing(backend.stream(upstream_call)) as parts:
        async for part in parts:
            yield as_chunk(part)


async def collect(backend: Backend, upstream_call: UpstreamCall) -> list[ChatCompletionChunk]:
    """Returns all chunks of a stream."""
    return [chunk async for chunk in stream_of(backend, upstream_call)]


def completion_of(chunks: Iterable[ChatCompletionChunk]) -> ChatCompletion:
    """Returns the accumulated answer of a stream."""
    accumulator = CompletionAccumulator(ChatCompletion())
    for chunk in chunks:
        accumulator.add(chunk)
    return accumulator.completion()


def joined(chunks: Iterable[ChatCompletionChunk]) -> Message:
    """Returns the accumulated message of a stream with one choice."""
    return completion_of(chunks).choices[0].message


def text(chunks: list[ChatCompletionChunk], index: int = 0) -> str:
    """Returns the accumulated text of one choice."""
    return "".join(choice.delta.content for chunk in chunks for choice in chunk.choices if choice.index == index)


def reasons(chunks: list[ChatCompletionChunk]) -> list[str]:
    """Returns every `finish_reason` of the chunks, in order."""
    return [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.HasField("finish_reason")]


async def failure(backend: Backend, upstream_call: UpstreamCall, *, stream: bool = False) -> ParleyError:
    """Returns the error with which a call ends."""
    with pytest.raises(ParleyError) as caught:
        await (collect(backend, upstream_call) if stream else backend.complete(upstream_call))
    return caught.value


async def broken_off(
    backend: Backend, upstream_call: UpstreamCall, gate: Gate | None = None
) -> tuple[list[ChatCompletionChunk], ParleyError | None]:
    """Returns a stream's chunks and its error, if any; opens the gate at the first text."""
    chunks = []
    try:
        async for chunk in stream_of(backend, upstream_call):
            chunks.append(chunk)
            if gate is not None and text(chunks):
                gate.set()
    except ParleyError as error:
        return chunks, error
    return chunks, None
