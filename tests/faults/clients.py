"""Clients that write turns and repeat each one until it is acknowledged, with its own Idempotency-Key."""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc

from parley.v1.chat_completions_pb2 import ChatCompletion, CreateChatCompletionRequest
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from parley.v1.sessions_pb2 import (
    DeleteSessionRequest,
    ForkSessionRequest,
    ListSessionMessagesRequest,
    ListSessionsRequest,
    Session,
    SessionMessage,
)
from parley.v1.sessions_pb2_grpc import SessionsStub
from tests.faults.cluster import Cluster

CALL_SECONDS = 60.0
_RETRY_SECONDS = 0.05
_RETRIED = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,  # gRPC's message for a connection that broke during a call
    }
)
_OPTIONS = [
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
    ("grpc.use_local_subchannel_pool", 1),
]


class WrongError(Exception):
    """A guarantee was violated; the text names it."""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The response to a caller: the answer's id, its session and its text."""

    id: str
    session: str
    text: str


@dataclass(slots=True)
class Tally:
    """The results of a run's clients. `slowest` is the longest time until a turn was acknowledged, in seconds."""

    turns: int = 0
    retries: int = 0
    slowest: float = 0.0
    refusals: dict[str, int] = field(default_factory=dict)


class Wire:
    """The stubs of every worker."""

    def __init__(self, cluster: Cluster, seconds: float = CALL_SECONDS) -> None:
        """Connects to every worker; `seconds` is the timeout of a call."""
        self._seconds = seconds
        self._metadata = (("authorization", f"Bearer {cluster.key}"),)
        self._channels = [grpc.aio.insecure_channel(slot.address, options=_OPTIONS) for slot in cluster.slots]
        self._chats: list[Any] = [ChatCompletionsStub(channel) for channel in self._channels]
        self._sessions: list[Any] = [SessionsStub(channel) for channel in self._channels]

    async def close(self) -> None:
        """Closes every connection."""
        for channel in self._channels:
            await channel.close()

    async def send_turn(
        self, slot: int, text: str, session: str | None, key: str | None, *, is_stream: bool = False
    ) -> Acknowledged:
        """Makes one turn at one worker. Raises grpc.aio.AioRpcError."""
        request = CreateChatCompletionRequest(model="echo", session_id=session)
        request.messages.add(role="user").content.string_value = text
        metadata = self._with_key(key)
        if is_stream:
            return await self._stream(slot, request, metadata)
        answer: ChatCompletion = await self._chats[slot].CreateChatCompletion(
            request, metadata=metadata, timeout=self._seconds
        )
        return Acknowledged(answer.id, answer.session_id, answer.choices[0].message.content.string_value)

    async def abandon(self, slot: int, text: str, session: str | None) -> None:
        """Begins a stream, and cancels it after the first chunk."""
        request = CreateChatCompletionRequest(model="echo", session_id=session)
        request.messages.add(role="user").content.string_value = text
        call = self._chats[slot].StreamChatCompletion(request, metadata=self._metadata, timeout=self._seconds)
        async for _ in call:
            break
        call.cancel()

    async def fork(self, slot: int, session: str, key: str | None) -> str:
        """Forks a session with all its completed turns; returns the id of the fork."""
        request = ForkSessionRequest(session_id=session)
        made = await self._sessions[slot].ForkSession(request, metadata=self._with_key(key), timeout=self._seconds)
        return str(made.id)

    async def delete(self, slot: int, session: str, key: str | None) -> None:
        """Deletes a session."""
        request = DeleteSessionRequest(session_id=session)
        await self._sessions[slot].DeleteSession(request, metadata=self._with_key(key), timeout=self._seconds)

    async def turn_counts(self, slot: int) -> dict[str, int]:
        """Reads the latest thousand sessions in one call: id to number of turns."""
        return {session.id: session.turn_count for session in await self._latest(slot)}

    async def origins(self, slot: int) -> dict[str, str | None]:
        """Reads the latest thousand sessions in one call: id to the session that it was forked from."""
        return {session.id: session.forked_from or None for session in await self._latest(slot)}

    async def _latest(self, slot: int) -> list[Session]:
        request = ListSessionsRequest(page_size=1000)
        page = await self._sessions[slot].ListSessions(request, metadata=self._metadata, timeout=self._seconds)
        return list(page.sessions)

    def _with_key(self, key: str | None) -> Any:
        return self._metadata if key is None else (*self._metadata, ("idempotency-key", key))

    async def messages(self, slot: int, session: str) -> list[SessionMessage]:
        """Reads all messages of a session at one worker."""
        found: list[SessionMessage] = []
        request = ListSessionMessagesRequest(session_id=session, page_size=1000)
        while True:
            page = await self._sessions[slot].ListSessionMessages(
                request, metadata=self._metadata, timeout=self._seconds
            )
            found.extend(page.messages)
            if not page.HasField("next_page_token"):
                return found
            request.page_token = page.next_page_token

    async def last_turn(self, slot: int) -> dict[str, int]:
        """Reads the latest sessions at one worker: id to number of turns."""
        page = await self._sessions[slot].ListSessions(
            ListSessionsRequest(page_size=20), metadata=self._metadata, timeout=self._seconds
        )
        return {session.id: session.turn_count for session in page.sessions}

    async def sessions(self, slot: int) -> list[str]:
        """Reads the ids of all sessions at one worker."""
        found: list[str] = []
        request = ListSessionsRequest(page_size=1000)
        while True:
            page = await self._sessions[slot].ListSessions(request, metadata=self._metadata, timeout=self._seconds)
            found.extend(session.id for session in page.sessions)
            if not page.HasField("next_page_token"):
                return found
            request.page_token = page.next_page_token

    async def _stream(self, slot: int, request: CreateChatCompletionRequest, metadata: Any) -> Acknowledged:
        text: list[str] = []
        reported, session, non_streaming = "", "", False
        call = self._chats[slot].StreamChatCompletion(request, metadata=metadata, timeout=self._seconds)
        async for chunk in call:
            reported, session, non_streaming = chunk.id, chunk.session_id, not chunk.choices
            text.extend(choice.delta.content for choice in chunk.choices)
        if not non_streaming:
            raise WrongError(f"a stream ended well without its last chunk: {reported}")
        return Acknowledged(reported, session, "".join(text))


class Writer:
    """One client, which repeats each turn until it is acknowledged, in one session after the other."""

    def __init__(self, wire: Wire, name: str, slots: int, tally: Tally, seed: int, turns_a_session: int = 100) -> None:
        self.acknowledged: dict[str, list[tuple[str, Acknowledged]]] = {}
        self._wire = wire
        self._name = name
        self._slots = slots
        self._tally = tally
        self._random = random.Random(seed)
        self._turns_a_session = turns_a_session
        self._session: str | None = None
        self._count = 0

    async def write(self, stop: asyncio.Event) -> None:
        """Writes turns until it is stopped, when the last turn is acknowledged."""
        while not stop.is_set():
            await self.turn()

    async def turn(self) -> None:
        """Writes one turn. Raises WrongError."""
        self._count += 1
        if self._session is not None and len(self.acknowledged[self._session]) >= self._turns_a_session:
            self._session = None
        text, key = f"{self._name} says {self._count}", f"{self._name}-{self._count}"
        is_stream = self._random.random() < 0.5
        started = time.monotonic()
        answer = await self._repeat(text, self._session, key, is_stream=is_stream)
        self._tally.slowest = max(self._tally.slowest, time.monotonic() - started)
        if answer.text != f"echo of {text}":
            raise WrongError(f"sent {text!r}, received {answer.text!r}")
        for _ in range(self._random.randrange(3)):
            self._tally.retries += 1
            again = await self._repeat(text, self._session, key, is_stream=is_stream)
            if again != answer:
                raise WrongError(f"the same key {key} got {answer} and then {again}")
        self.acknowledged.setdefault(answer.session, []).append((text, answer))
        self._session = answer.session
        self._tally.turns += 1

    async def _repeat(self, text: str, session: str | None, key: str, *, is_stream: bool) -> Acknowledged:
        """Repeats a call until it is answered."""
        while True:
            try:
                return await self._wire.send_turn(
                    self._random.randrange(self._slots), text, session, key, is_stream=is_stream
                )
            except grpc.aio.AioRpcError as error:
                self._note(error)
            self._tally.retries += 1
            await asyncio.sleep(_RETRY_SECONDS)

    def _note(self, error: grpc.aio.AioRpcError) -> None:
        if error.code() not in _RETRIED:
            raise WrongError(f"{self._name} was refused: {error.code().name} {error.details()}") from error
        refusals = self._tally.refusals
        refusals[error.code().name] = refusals.get(error.code().name, 0) + 1


def check_session(
    session: str, reported: Sequence[tuple[str, Acknowledged]], messages: Sequence[SessionMessage]
) -> None:
    """Raises WrongError unless the session has exactly the acknowledged turns in order."""
    if running := [message.turn for message in messages if message.state == "in_progress"]:
        raise WrongError(f"session {session}: turns {running} are still in progress")
    completed = [message for message in messages if message.state == "completed"]
    texts = [message.message.content.string_value for message in completed]
    expected = [text for question, answer in reported for text in (question, answer.text)]
    if texts != expected:
        lost, extra = set(expected) - set(texts), set(texts) - set(expected)
        raise WrongError(f"session {session}: lost {lost}, not acknowledged {extra}, or out of order or twice: {texts}")
    numbers = [message.turn for message in completed]
    if sorted(numbers) != numbers or any(numbers.count(number) != 2 for number in set(numbers)):
        raise WrongError(f"session {session}: more than one commit for a turn: {numbers}")
