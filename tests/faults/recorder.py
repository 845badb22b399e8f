"""Random operations over several replicas under nemeses: the recorder, and the violations in its record."""

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

import grpc

from tests.faults.checker import violations
from tests.faults.clients import Wire, WrongError
from tests.faults.cluster import cluster
from tests.faults.history import (
    Answer,
    Delete,
    Fork,
    History,
    Listing,
    Operation,
    Outcome,
    Read,
    StoredMessage,
    Turn,
)
from tests.faults.nemeses import Clocks, Nemeses
from tests.faults.scenarios import Database, report
from tests.faults.witness import Witness
from tests.upstream import ScriptedUpstream

_REPLICAS = 2
_CALL_SECONDS = 4.0  # less than the suspension of a worker
_MOST_SESSIONS = 500
_PAUSE_SECONDS = 0.05  # after a failure
_QUIET_SECONDS = 1.0  # calls with cancelled clients may still begin a turn
_SETTLED_SECONDS = 40.0
_WEIGHTS = {"turn": 60, "retry": 14, "leave": 6, "read": 12, "list": 4, "fork": 3, "delete": 1}
_REFUSED = frozenset({"SESSION_BUSY", "IDEMPOTENCY_KEY_IN_USE", "IDEMPOTENCY_KEY_REUSED"})


@dataclass(frozen=True, slots=True)
class Intention:
    """A turn with a key, to be repeated."""

    text: str
    session: str | None
    key: str


@dataclass
class Recorder:
    """Clients of a run, which share the known sessions and the used keys."""

    wire: Wire
    history: History
    chance: random.Random
    sessions: list[str] = field(default_factory=list)
    intentions: list[Intention] = field(default_factory=list)
    forks: list[tuple[str, str]] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    _texts: Any = field(default_factory=lambda: itertools.count(1))

    async def run(self, until: float) -> None:
        """Makes one random operation after the other until this time."""
        names, weights = list(_WEIGHTS), list(_WEIGHTS.values())
        operations: dict[str, Callable[[], Awaitable[None]]] = {
            "turn": self._turn,
            "retry": self._retry,
            "leave": self._abandon,
            "read": self._read_one,
            "list": self._list,
            "fork": self._fork,
            "delete": self._delete,
        }
        while time.monotonic() < until:
            await operations[self.chance.choices(names, weights)[0]]()
            await asyncio.sleep(self.chance.random() * 0.02)

    async def final(self) -> None:
        """Reads every session at every replica after all turns have ended. Raises WrongError if one does not end."""
        found = await self._all_sessions()
        forked = {fork.made for fork in self.history.operations if isinstance(fork, Fork)}
        for session, origin in found.items():
            if origin is not None and session not in forked:
                made = Fork(started=0, ended=inf, outcome=Outcome.UNKNOWN, session=origin, made=session)
                self.history.operations.append(made)
        reads = itertools.product(range(_REPLICAS), sorted({*found, *self.sessions}))
        self.history.final += await asyncio.gather(*(self._settled_read(*read_arguments) for read_arguments in reads))

    async def _all_sessions(self) -> dict[str, str | None]:
        ends = time.monotonic() + _SETTLED_SECONDS
        while True:
            with suppress(grpc.aio.AioRpcError):
                return await self.wire.origins(0)
            if time.monotonic() > ends:
                raise WrongError("the service does not come back")
            await asyncio.sleep(0.2)

    async def _settled_read(self, replica: int, session: str) -> Read:
        """Reads until the session has no turn in progress, or until a timeout."""
        ends = time.monotonic() + _SETTLED_SECONDS
        while True:
            read = await self._read(replica, session)
            running = any(one.state == "in_progress" for one in read.messages)
            if (read.outcome is not Outcome.UNKNOWN and not running) or time.monotonic() > ends:
                return read
            await asyncio.sleep(0.3)

    async def _turn(self) -> None:
        text = f"q{next(self._texts)}"
        new = not self.sessions or (self.chance.random() < 0.15 and len(self.sessions) < _MOST_SESSIONS)
        session = None if new else self.chance.choice(self.sessions[-12:])
        key = f"key of {text}" if self.chance.random() < 0.6 else None
        if key is not None:
            self.intentions.append(Intention(text, session, key))
        await self._send_turn(text, session, key)

    async def _retry(self) -> None:
        """Repeats a turn with its key, at any replica and in any form."""
        if self.intentions:
            intention = self.chance.choice(self.intentions[-40:])
            await self._send_turn(intention.text, intention.session, intention.key)

    async def _abandon(self) -> None:
        """Begins a stream and cancels it after its first chunk."""
        text, session = f"q{next(self._texts)}", self.chance.choice(self.sessions) if self.sessions else None
        started = time.monotonic()
        outcome, _ = await self._call(self.wire.abandon(self._slot(), text, session))
        outcome = Outcome.UNKNOWN if outcome is Outcome.OK else outcome
        self._note(Turn(started=started, ended=time.monotonic(), outcome=outcome, text=text, session=session))

    async def _send_turn(self, text: str, session: str | None, key: str | None) -> None:
        is_stream = self.chance.random() < 0.5
        started = time.monotonic()
        outcome, reported = await self._call(self.wire.send_turn(self._slot(), text, session, key, is_stream=is_stream))
        answer = Answer(reported.id, reported.session, reported.text) if reported else None
        ended = time.monotonic()
        self._note(
            Turn(started=started, ended=ended, outcome=outcome, text=text, session=session, key=key, answer=answer)
        )
        if answer is not None and answer.session not in self.sessions:
            self.sessions.append(answer.session)

    async def _read_one(self) -> None:
        if self.sessions:
            self._note(await self._read(self._slot(), self.chance.choice(self.sessions)))

    async def _read(self, replica: int, session: str) -> Read:
        started = time.monotonic()
        outcome, messages = await self._call(self.wire.messages(replica, session))
        stored = [
            StoredMessage(m.turn, m.state, m.message.role, m.message.content.string_value) for m in messages or ()
        ]
        return Read(
            started=started,
            ended=time.monotonic(),
            outcome=outcome,
            session=session,
            replica=replica,
            messages=tuple(stored),
        )

    async def _list(self) -> None:
        replica, started = self._slot(), time.monotonic()
        outcome, found = await self._call(self.wire.turn_counts(replica))
        ended = time.monotonic()
        self._note(Listing(started=started, ended=ended, outcome=outcome, replica=replica, sessions=found or {}))

    async def _fork(self) -> None:
        """Forks a session; half of the time with a key, which may have been used already."""
        if not self.sessions or len(self.sessions) >= _MOST_SESSIONS:
            return
        session, key = self.chance.choice(self.sessions), None
        if self.chance.random() < 0.7:
            if not self.forks or self.chance.random() < 0.5:
                self.forks.append((session, f"fork {len(self.forks)}"))
            session, key = self.chance.choice(self.forks[-5:])
        started = time.monotonic()
        outcome, made = await self._call(self.wire.fork(self._slot(), session, key))
        self._note(
            Fork(started=started, ended=time.monotonic(), outcome=outcome, session=session, key=key, made=made or None)
        )
        if made and made not in self.sessions:
            self.sessions.append(made)

    async def _delete(self) -> None:
        if self.sessions:
            session = self.chance.choice(self.sessions)
            key = f"delete {session}" if self.chance.random() < 0.5 else None
            started = time.monotonic()
            outcome, _ = await self._call(self.wire.delete(self._slot(), session, key))
            self._note(Delete(started=started, ended=time.monotonic(), outcome=outcome, session=session, key=key))

    async def _call(self, call: Awaitable[Any]) -> tuple[Outcome, Any]:
        """Makes a call; returns its outcome."""
        try:
            return Outcome.OK, await call
        except grpc.aio.AioRpcError as error:
            reason = str(dict(error.trailing_metadata() or ()).get("parley-error-reason", ""))
            self.errors[reason or error.code().name] += 1
            if reason in _REFUSED:
                return Outcome.REFUSED, None
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return Outcome.NOT_FOUND, None
            if error.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL):
                raise WrongError(f"a client was refused: {error.code().name} {error.details()}") from error
            await asyncio.sleep(_PAUSE_SECONDS)
            return Outcome.UNKNOWN, None

    def _slot(self) -> int:
        return self.chance.randrange(_REPLICAS)

    def _note(self, operation: Operation) -> None:
        self.history.operations.append(operation)


async def record(
    folder: Path,
    seed: int,
    database: Database | None,
    *,
    seconds: float,
    clients: int = 6,
    nemeses: Sequence[str] = (),
) -> dict[str, Any]:
    """Runs clients under nemeses: the given ones in order, then random ones. Raises WrongError with the violations."""
    chance, witness, clocks = random.Random(seed), Witness(seed), Clocks(folder)
    environment = [clocks.environment(worker) for worker in range(_REPLICAS)]
    with ScriptedUpstream() as upstream:
        upstream.default = witness
        url = database.url if database else None
        async with cluster(folder, upstream.url, url, _REPLICAS, window=10_000, environment=environment) as running:
            wire, history = Wire(running, _CALL_SECONDS), History(requests=witness.requests)
            recorder = Recorder(wire, history, random.Random(chance.random()))
            try:
                until = time.monotonic() + seconds
                tasks = [asyncio.create_task(recorder.run(until)) for _ in range(clients)]
                faults = Nemeses(running, clocks, database, random.Random(chance.random())).all()
                done = await _run_nemeses(faults, list(nemeses), random.Random(chance.random()), until)
                await asyncio.gather(*tasks)
                await asyncio.sleep(_QUIET_SECONDS)
                await recorder.final()
            finally:
                await wire.close()
    broken = violations(history)
    if broken:
        raise WrongError(f"{len(broken)} violations: {'; '.join(broken[:5])}")
    return _figures(history) | {"errors": dict(recorder.errors), "nemeses": dict(done)}


async def _run_nemeses(
    faults: dict[str, Callable[[], Awaitable[None]]], first: list[str], chance: random.Random, until: float
) -> Counter[str]:
    """Runs one nemesis after the other until this time, and each of `first` in any case."""
    done: Counter[str] = Counter()
    while first or time.monotonic() < until:
        name = first.pop(0) if first else chance.choice(sorted(faults))
        if name in faults:
            report(f"  {name}")
            await faults[name]()
            done[name] += 1
        await asyncio.sleep(0.2 + chance.random())
    return done


def _figures(history: History) -> dict[str, Any]:
    """Counts the recorded operations."""
    turns = [operation for operation in history.operations if isinstance(operation, Turn)]
    return {
        "operations": len(history.operations),
        "acknowledged": len({turn.text for turn in turns if turn.answer}),
        "unknown": sum(turn.outcome is Outcome.UNKNOWN for turn in turns),
        "sessions": len({read.session for read in history.final}),
        "upstream": len(history.requests),
    }
