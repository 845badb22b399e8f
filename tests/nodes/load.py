"""Clients that continue sessions at a steady rate, whatever the answers, and remember what was acknowledged."""

import asyncio
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TextIO

import aiohttp

CALL_SECONDS = 30.0
"""The time limit of one attempt."""
REPEATED_SECONDS = 90.0
"""For how long a call is repeated with its key until it is acknowledged."""
_PAUSE = 0.2
_STREAMS = 0.25  # the share of calls that stream
_CHECK_SECONDS = 0.5


@dataclass
class Seen:
    """What the clients have seen in one phase of the drill; an outcome counts in the phase in which it is known.

    Attributes:
        calls: Calls that were begun.
        refused: Attempts that were answered with an error at once, which states that the call was not made.
        broken: Attempts that failed in flight: their connection or their stream broke, or they had no answer in time.
        reasons: The first attempts that failed, by their cause.
        failed: Calls whose first attempt failed.
        given_up: Calls that were not acknowledged in `REPEATED_SECONDS`.
        slowest: The longest time until a call was acknowledged, in seconds.
        skipped: Calls that were not begun, because all sessions were in use.
        seconds: The time of each acknowledged call.
    """

    calls: int = 0
    failed: int = 0
    refused: int = 0
    broken: int = 0
    given_up: int = 0
    slowest: float = 0.0
    skipped: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)


@dataclass
class Conversation:
    """A session, and the questions and answers that were acknowledged in it."""

    id: str = ""
    turns: list[tuple[str, str]] = field(default_factory=list)


class FailedAttemptError(Exception):
    """An attempt failed; `is_refusal` states whether it was answered with an error."""

    def __init__(self, reason: str, *, is_refusal: bool) -> None:
        super().__init__(reason)
        self.is_refusal = is_refusal


class Load:
    """The clients.

    Args:
        edges: The base URLs of the Envoys, between which a client chooses as a load balancer does.
        key: The API key of the conversations.
        rate: Calls a second.
        conversations: The number of sessions.
        log: Receives a line for each failed attempt.
    """

    def __init__(self, edges: Sequence[str], key: str, rate: float, conversations: int, log: TextIO) -> None:
        self.phases: dict[str, Seen] = {}
        self.conversations = [Conversation() for _ in range(conversations)]
        self.phase = ""
        self.limited: Counter[str] = Counter()
        self._idle = list(self.conversations)
        self._edges = dict.fromkeys(edges, True)
        self._headers = {"Authorization": f"Bearer {key}"}
        self._rate = rate
        self._log = log
        self._names = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None

    @property
    def seen(self) -> Seen:
        """What was seen in the present phase."""
        return self.phases.setdefault(self.phase, Seen())

    async def run(self, ended: asyncio.Event, limited: Sequence[tuple[str, str, int]]) -> None:
        """Makes calls until `ended`, and waits for those that run.

        Args:
            ended: Ends the load.
            limited: Further clients: the first word of their questions, their key, and how many they are. They make
                calls one after another, some of which a limit refuses.
        """
        timeout = aiohttp.ClientTimeout(total=CALL_SECONDS, connect=2)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as self._session:
            others = [asyncio.create_task(self._check_edges())]
            others += [
                asyncio.create_task(self._limited(ended, kind, key))
                for kind, key, count in limited
                for _ in range(count)
            ]
            await self._pace(ended)
            await asyncio.wait(others[1:], timeout=CALL_SECONDS)
            for task in others:
                task.cancel()
            while self._tasks:
                await asyncio.wait(self._tasks)

    async def models(self, edge: str) -> list[str]:
        """Returns the ids of the models at an Envoy."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{edge}/v1/models", headers=self._headers) as response,
        ):
            return [model["id"] for model in (await response.json())["data"]]

    async def read(self, conversation: Conversation) -> list[tuple[str, str, str]]:
        """Returns the stored turns of a session: their states, questions and answers."""
        found: list[dict[str, Any]] = []
        token = ""
        async with aiohttp.ClientSession() as session:
            while True:
                path = f"/api/v1/sessions/{conversation.id}/messages?page_size=1000&page_token={token}"
                async with session.get(self._edge() + path, headers=self._headers) as response:
                    page = await response.json()
                found += page.get("messages", [])
                if not (token := page.get("next_page_token", "")):
                    return _turns(found)

    async def _pace(self, ended: asyncio.Event) -> None:
        """Begins calls at the rate; one whose session is not free, because all are in use, is skipped."""
        due = time.monotonic()
        while not ended.is_set():
            due += 1 / self._rate
            if (pause := due - time.monotonic()) > 0:
                await asyncio.sleep(pause)
            elif pause < -1:
                due = time.monotonic()  # the machine is too slow for the rate
            if not self._idle:
                self.seen.skipped += 1
                continue
            conversation = self._idle.pop(random.randrange(len(self._idle)))
            task = asyncio.create_task(self._call(conversation))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _call(self, conversation: Conversation) -> None:
        """Makes a call, and repeats it with its key until it is acknowledged."""
        number, began = next(self._names), time.monotonic()
        self.seen.calls += 1
        body: dict[str, Any] = {"model": "echo", "messages": [{"role": "user", "content": f"turn {number}"}]}
        if conversation.id:
            body["chatSessionId"] = conversation.id
        if random.random() < _STREAMS:
            body["stream"] = True
        attempts = 0
        while True:
            attempts += 1
            try:
                session, text = await self._attempt(body, {"Idempotency-Key": f"drill-{number}"})
            except FailedAttemptError as error:
                _count(self.seen, error, attempts)
                self._log.write(f"{time.time():.3f} {self.phase}: turn {number}, attempt {attempts}: {error}\n")
                if time.monotonic() - began > REPEATED_SECONDS:
                    self.seen.given_up += 1
                    return  # the session is not used again: its last turn is unknown
                await asyncio.sleep(_PAUSE)
                continue
            conversation.id = session
            conversation.turns.append((f"turn {number}", text))
            self._idle.append(conversation)
            self.seen.seconds.append(time.monotonic() - began)
            self.seen.slowest = max(self.seen.slowest, self.seen.seconds[-1])
            return

    async def _attempt(
        self, body: dict[str, Any], headers: dict[str, str], tried: AbstractSet[str] = frozenset()
    ) -> tuple[str, str]:
        """Makes one attempt at an Envoy that was not tried; returns the session and the text.

        Raises:
            FailedAttemptError: The attempt failed.
        """
        assert self._session is not None
        edge = self._edge(tried)
        try:
            url = f"{edge}/v1/chat/completions"
            async with self._session.post(url, json=body, headers=self._headers | headers) as response:
                if response.status != 200:
                    raise FailedAttemptError(_reason(response.status, await response.text()), is_refusal=True)
                session = response.headers.get("x-chat-session-id", "")
                return session, _streamed(await response.text()) if body.get("stream") else _whole(
                    await response.json()
                )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            self._edges[edge] = False
            if len(tried) + 1 == len(self._edges):
                raise FailedAttemptError("no Envoy", is_refusal=True) from error
            return await self._attempt(body, headers, {*tried, edge})  # it was not sent: as load balancers do
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise FailedAttemptError(type(error).__name__, is_refusal=False) from error

    async def _limited(self, ended: asyncio.Event, kind: str, key: str) -> None:
        """Makes calls without a session, one after another; counts those that were answered and all others."""
        headers = {"Authorization": f"Bearer {key}"}
        body = {"model": "limited", "messages": [{"role": "user", "content": f"{kind} call"}], "store": False}
        while not ended.is_set():
            try:
                await self._attempt(body, headers)
                self.limited[f"{kind} answered"] += 1
            except FailedAttemptError as error:
                self.limited[f"{kind} {error}"] += 1
                await asyncio.sleep(0.5)

    async def _check_edges(self) -> None:
        """Asks each Envoy whether it serves, as a load balancer does."""
        assert self._session is not None
        while True:
            for edge in self._edges:
                ready = False
                with suppress(aiohttp.ClientError, TimeoutError, OSError):
                    async with self._session.get(f"{edge}/healthz", timeout=aiohttp.ClientTimeout(total=2)) as response:
                        ready = response.status == 200
                self._edges[edge] = ready
            await asyncio.sleep(_CHECK_SECONDS)

    def _edge(self, tried: AbstractSet[str] = frozenset()) -> str:
        """Returns a ready Envoy that was not tried; any other one if none is ready."""
        left = [edge for edge in self._edges if edge not in tried]
        return random.choice([edge for edge in left if self._edges[edge]] or left)


def _count(seen: Seen, error: FailedAttemptError, attempts: int) -> None:
    seen.refused += error.is_refusal
    seen.broken += not error.is_refusal
    if attempts == 1:
        seen.failed += 1
        seen.reasons[str(error)] += 1


def _reason(status: int, text: str) -> str:
    with suppress(ValueError, TypeError, KeyError):
        error = json.loads(text)["error"]
        return f"{status} {error['code'] or error['message']}"
    return f"{status} {text[:100]}"


def _whole(answer: Any) -> str:
    return str(answer["choices"][0]["message"]["content"])


def _streamed(text: str) -> str:
    """Returns the text of a complete stream. Raises FailedAttemptError."""
    pieces, events = [], [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    if not events or events[-1] != "[DONE]":
        raise FailedAttemptError("broken stream", is_refusal=False)
    for event in map(json.loads, events[:-1]):
        if "error" in event:
            raise FailedAttemptError(f"stream {event['error'].get('code')}", is_refusal=False)
        pieces += [choice["delta"].get("content") or "" for choice in event["choices"]]
    return "".join(pieces)


def _turns(messages: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Joins the messages of each turn: its state, the question and the answer."""
    found: dict[int, dict[str, str]] = {}
    for item in messages:
        turn = found.setdefault(int(item["turn"]), {})
        turn[item["message"]["role"]] = item["message"].get("content") or ""
        turn["state"] = item.get("state", "")
    return [(turn["state"], turn.get("user", ""), turn.get("assistant", "")) for _, turn in sorted(found.items())]
