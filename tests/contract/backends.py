"""What the contract suite of backends needs of a vendor, and how to make calls.

A vendor joins by an object with the methods of `Vendor`: how its server is run and its backend made, and how its server
says what the suite has to say. A script is the vendor's own, made by it and given to its server.
"""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from enum import Enum
from typing import Any, Protocol

import pytest
from google.protobuf import json_format

from parley.config import Timeouts
from parley.core.errors import ParleyError, UpstreamError
from parley.core.ports import Backend, UpstreamCall
from parley.core.streaming.accumulator import CompletionAccumulator
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk, CreateChatCompletionRequest
from parley.v1.message_pb2 import Message
from tests.upstream import Cut, Delay, Gate, Signal, Stall

NOT_AVAILABLE = 'The model "myapp-123" is not available; try again later'
KEY = "tgp_v1_the.secret+of/this=test"
QUESTION = {"model": "myapp-123", "messages": [{"role": "user", "content": "hi"}]}


class Mark(Enum):
    """In a stream: what every vendor says in its own way."""

    END = "the answer is whole: why it ended, and that it cost 9 + 3 tokens"
    FAULT = "an error that says `the GPU is gone`"
    TOO_LONG = "an error that says that the conversation is too long"


Piece = str | bytes | Mark | Signal | Delay | Cut | Stall
"""A step of a stream: a piece of text; raw bytes, where the vendor speaks HTTP; a mark; what else happens."""


class Received(Protocol):
    """A call as the vendor's server got it. `closed` is set when the client has given it up."""

    @property
    def closed(self) -> Signal:
        """Whether the client has closed the connection, or cancelled the call."""
        ...


class Upstream(Protocol):
    """A vendor's server, which follows scripts in the order given."""

    @property
    def address(self) -> str:
        """Where it listens: `host:port`."""
        ...

    @property
    def connections(self) -> int:
        """How many connections it has accepted."""
        ...

    @property
    def requests(self) -> Sequence[Received]:
        """The calls that have come."""
        ...

    def answer(self, *scripts: Any) -> None:
        """Adds scripts, one for each call to come."""
        ...

    async def arrives(self, index: int = 0) -> Received:
        """Waits for a call."""
        ...


class Vendor(Protocol):
    """A vendor's server and backend, and its way of saying things."""

    @property
    def name(self) -> str:
        """What pytest shows."""
        ...

    def serve(self) -> AbstractContextManager[Upstream]:
        """Runs a server on a free port."""
        ...

    def backend(self, address: str) -> Backend:
        """Makes the backend for a server at `host:port`, with the key KEY."""
        ...

    def asked_model(self, received: Any) -> str:
        """Returns the model that a call asked for."""
        ...

    def complete_answer(self, words: str) -> Any:
        """Answers whole, at the cost of 9 + 3 tokens."""
        ...

    def stream(self, *pieces: Piece) -> Any:
        """Answers with a stream: its beginning, and the pieces. Without Mark.END it says nowhere that it is whole."""
        ...

    def refuses(self, kind: type[UpstreamError], words: str, retry_after: float | None = None) -> Any:
        """Refuses the call as the vendor does what is to become an error of this kind; says the words, or more."""
        ...

    def silence(self) -> Any:
        """Takes the call and never says anything."""
        ...

    def hangs_up(self) -> Any:
        """Takes the call and closes the connection."""
        ...


def request(**fields: Any) -> CreateChatCompletionRequest:
    """Returns a request from its JSON; without `messages` it asks a short question."""
    return json_format.ParseDict(QUESTION | fields, CreateChatCompletionRequest())


def call(
    *, deadline: float | None = None, timeouts: dict[str, float] | None = None, continues: bool = False, **fields: Any
) -> UpstreamCall:
    """Returns a call of the target `target-1`. `deadline` is in seconds from now, `timeouts` replaces defaults."""
    until = None if deadline is None else asyncio.get_running_loop().time() + deadline
    return UpstreamCall(request(**fields), "target-1", Timeouts(**(timeouts or {})), until, continues)


async def collect(backend: Backend, asked: UpstreamCall) -> list[ChatCompletionChunk]:
    """Returns all chunks of a stream."""
    return [chunk async for chunk in backend.stream(asked)]


def completion_of(chunks: Iterable[ChatCompletionChunk]) -> ChatCompletion:
    """Returns the answer that a stream adds up to."""
    accumulator = CompletionAccumulator(ChatCompletion())
    for chunk in chunks:
        accumulator.add(chunk)
    return accumulator.completion()


def joined(chunks: Iterable[ChatCompletionChunk]) -> Message:
    """Returns the message that a stream of one choice adds up to."""
    return completion_of(chunks).choices[0].message


def text(chunks: list[ChatCompletionChunk], index: int = 0) -> str:
    """Returns what the chunks say in one choice."""
    return "".join(choice.delta.content for chunk in chunks for choice in chunk.choices if choice.index == index)


def reasons(chunks: list[ChatCompletionChunk]) -> list[str]:
    """Returns every `finish_reason` of the chunks, in order."""
    return [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.HasField("finish_reason")]


async def failure(backend: Backend, asked: UpstreamCall, *, stream: bool = False) -> ParleyError:
    """Returns the error that a call ends with."""
    with pytest.raises(ParleyError) as caught:
        await (collect(backend, asked) if stream else backend.complete(asked))
    return caught.value


async def broken_off(
    backend: Backend, asked: UpstreamCall, gate: Gate | None = None
) -> tuple[list[ChatCompletionChunk], ParleyError | None]:
    """Returns a stream's chunks and the error that it ends with; opens the gate at the first text."""
    chunks = []
    try:
        async for chunk in backend.stream(asked):
            chunks.append(chunk)
            if gate is not None and text(chunks):
                gate.set()
    except ParleyError as error:
        return chunks, error
    return chunks, None
