"""Fault scenarios: faults of workers and the database under clients. Each raises WrongError for a broken guarantee."""

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import grpc

from tests.faults.clients import Acknowledged, Tally, Wire, Writer, WrongError, check_session
from tests.faults.cluster import Cluster, cluster
from tests.upstream import Answer, Delay, Events, Gate, Json, Received, ScriptedUpstream, chunks, completion, ending

_SETTLED_SECONDS = 30.0


class Database(Protocol):
    """A database that can be killed and started again."""

    url: str

    async def kill(self) -> None:
        """Kills all its processes."""
        ...

    async def start(self) -> None:
        """Starts it on the same data and waits until it serves."""
        ...

    async def freeze(self, seconds: float) -> None:
        """Suspends all its processes for `seconds`."""
        ...


def report(text: str) -> None:
    """Shows progress on stderr."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


class EchoUpstream:
    """An upstream that answers `echo of …` within 30 ms, unary or streaming; a question in `gates` waits for that."""

    def __init__(self, seed: int) -> None:
        self.gates: dict[str, Gate] = {}
        self._chance = random.Random(seed)

    def __call__(self, request: Received) -> Answer:
        question = request.json["messages"][-1]["content"]
        wait = self.gates.get(question) or Delay(self._chance.random() * 0.03)
        if request.json.get("stream"):
            role, *pieces = chunks("echo of ", question)
            return Events([role, wait, *pieces, *ending()])
        return Json(completion(f"echo of {question}"), wait=wait)


class Stage(NamedTuple):
    """Running workers, their clients, and the gates that delay answers, by question."""

    cluster: Cluster
    wire: Wire
    gates: dict[str, Gate]


@asynccontextmanager
async def stage(folder: Path, store: Database | None, seed: int, workers: int = 3) -> AsyncIterator[Stage]:
    """Runs workers behind an echoing upstream."""
    echo = EchoUpstream(seed)
    with ScriptedUpstream() as upstream:
        upstream.default = echo
        async with cluster(folder, upstream.url, store.url if store else None, workers) as running:
            wire = Wire(running)
            try:
                yield Stage(running, wire, echo.gates)
            finally:
                await wire.close()


async def kills(
    folder: Path, seed: int, *, workers: int, databases: int, database: Database | None = None, clients: int = 8
) -> dict[str, Any]:
    """Kills workers and the database at random times under writing clients; compares acknowledged and stored turns."""
    chance = random.Random(seed)
    tally = Tally()
    async with stage(folder, database, seed) as (running, wire, _):
        slots = len(running.slots)
        writers = [Writer(wire, f"client {n}", slots, tally, chance.randrange(2**32)) for n in range(clients)]
        stop = asyncio.Event()
        tasks = [asyncio.create_task(writer.write(stop)) for writer in writers]
        await _killing(running, database, chance, workers, databases, tasks)
        stop.set()
        await asyncio.gather(*tasks)
        reported = {session: answers for writer in writers for session, answers in writer.acknowledged.items()}
        sessions = len(reported)
        await _compare(wire, reported)
    return {"workers_killed": workers, "databases_killed": databases, "sessions": sessions, **asdict(tally)}


async def _killing(
    running: Cluster,
    database: Database | None,
    chance: random.Random,
    workers: int,
    databases: int,
    clients: list[asyncio.Task[None]],
) -> None:
    """Kills in a random order at random moments; ends early if a client has found a violation.

    A killed worker starts again while the next ones are killed; one is always running.
    """
    order = ["worker"] * workers + ["database"] * databases
    chance.shuffle(order)
    starting: set[asyncio.Task[None]] = set()
    for number, victim in enumerate(order, 1):
        await asyncio.sleep(chance.random() * 0.6)
        _raise_early(clients)
        if victim == "database" and database is not None:
            await database.kill()
            await database.start()
        else:
            while len(serving := [slot for slot in running.slots if slot.serves]) < len(running.slots) - 1:
                _, starting = await asyncio.wait(starting, return_when=asyncio.FIRST_COMPLETED)
            slot = chance.choice(serving)
            await slot.kill()
            starting.add(asyncio.create_task(slot.start()))
        if number % 10 == 0:
            report(f"  {number} of {len(order)} kills")
    await asyncio.gather(*starting)


def _raise_early(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        if task.done():
            task.result()


async def _compare(wire: Wire, reported: dict[str, list[tuple[str, Acknowledged]]]) -> None:
    """Waits until no turn is in progress, then compares every session."""
    await _settled(wire)
    for session in await wire.sessions(0):
        check_session(session, reported.pop(session, []), await wire.messages(0, session))
    if reported:
        raise WrongError(f"sessions were lost: {list(reported)}")


async def _settled(wire: Wire) -> None:
    """Waits until no turn is in progress. Raises WrongError if one remains after 30 seconds."""
    end = asyncio.get_running_loop().time() + _SETTLED_SECONDS
    while True:
        messages = [message for session in await wire.sessions(0) for message in await wire.messages(0, session)]
        stuck = {message.turn for message in messages if message.state == "in_progress"}
        if not stuck:
            return
        if asyncio.get_running_loop().time() > end:
            raise WrongError(f"turns are in progress for ever: {stuck}")
        await asyncio.sleep(1)


async def race(folder: Path, seed: int, store: Database | None, clients: int = 50) -> dict[str, Any]:
    """Runs clients that compete for one session; each retries until its turn is acknowledged."""
    async with stage(folder, store, seed) as (running, wire, _):
        first = await wire.send_turn(0, "client 0 says 0", None, "race-0")
        answers = await asyncio.gather(
            *(_repeat(wire, n % len(running.slots), f"racer {n}", first.session, f"race {n}") for n in range(clients))
        )
        messages = await wire.messages(0, first.session)
        completed = [message for message in messages if message.state == "completed"]
        numbers = [message.turn for message in completed if message.message.role == "user"]
        texts = {message.message.content.string_value for message in completed if message.message.role == "assistant"}
        _must(len(numbers) == len(set(numbers)) == clients + 1, f"turns {numbers}")
        _must({answer.text for answer in answers} <= texts, "an acknowledged answer is not stored")
    return {"clients": clients, "turns": len(numbers)}


async def stopped(folder: Path, seed: int, store: Database | None) -> dict[str, Any]:
    """Suspends a worker past its lease while another uses its session; the resumed worker must not write."""
    async with stage(folder, store, seed) as (running, wire, gates):
        started = [await _hold(wire, gates, is_stream=is_stream) for is_stream in (False, True)]
        pids = running.slots[0].worker_pids()
        _signal(pids, signal.SIGSTOP)
        for lease in started:
            await _repeat(wire, 1, "another", lease.session, f"another-{lease.text}")
        _signal(pids, signal.SIGCONT)
        for lease in started:
            gates[lease.text].set()
            await _must_fail(lease.call)
            again = await _repeat(wire, 0, lease.text, lease.session, lease.text, is_stream=lease.streamed)
            _must(again.text == f"echo of {lease.text}", f"retried, received {again.text!r}")
            messages = await wire.messages(1, lease.session)
            completed = [message.turn for message in messages if message.state == "completed"]
            _must(all(completed.count(turn) == 2 for turn in completed), f"commits {completed}")
            _must(len(set(completed)) == 3, f"turns {completed}: the first, the other's, and the held one again")
    return {"sessions": len(started)}


class _Held(NamedTuple):
    """A call that waits for its gate."""

    call: asyncio.Task[Acknowledged]
    text: str
    session: str
    streamed: bool


async def _hold(wire: Wire, gates: dict[str, Gate], *, is_stream: bool) -> _Held:
    """Begins a turn at the first worker, in a session that has one already, and stops in the middle of it."""
    first = await wire.send_turn(0, "hello", None, f"hello-{is_stream}")
    text = "held, streamed" if is_stream else "held, whole"
    gates[text] = Gate()
    late = asyncio.create_task(wire.send_turn(0, text, first.session, text, is_stream=is_stream))
    await _until(lambda: _in_progress(wire, first.session))
    return _Held(late, text, first.session, is_stream)


async def replicas(folder: Path, seed: int, store: Database | None, times: int) -> dict[str, Any]:
    """Writes turns at one of two workers and reads each at the other, `times` times."""
    async with stage(folder, store, seed, workers=2) as (_, wire, _):
        sessions: dict[int, str] = {}

        async def lane(number: int) -> None:
            for count in range(number, times, 8):
                one = count % 2
                turn = count // 8 % 50
                session = sessions.get(number) if turn else None
                answer = await wire.send_turn(one, f"turn {count}", session, f"replica-{count}")
                sessions[number] = answer.session
                messages = await wire.messages(1 - one, answer.session)
                last = messages[-1].message.content.string_value if messages else None
                _must(last == answer.text and messages[-1].state == "completed", f"{answer} is not read: {last}")

        await asyncio.gather(*(lane(number) for number in range(8)))
    return {"times": times}


async def _repeat(wire: Wire, slot: int, text: str, session: str, key: str, *, is_stream: bool = False) -> Acknowledged:
    while True:
        try:
            return await wire.send_turn(slot, text, session, key, is_stream=is_stream)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.ABORTED:
                raise WrongError(f"{text!r} was refused: {error.code().name} {error.details()}") from error
        await asyncio.sleep(0.05)


async def _must_fail(call: asyncio.Task[Acknowledged]) -> None:
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        _must(
            error.code() is grpc.StatusCode.ABORTED, f"the late worker returned {error.code().name} {error.details()}"
        )
        return
    raise WrongError(f"a worker that slept past its lease acknowledged {answer}")


async def _in_progress(wire: Wire, session: str) -> bool:
    return any(message.state == "in_progress" for message in await wire.messages(1, session))


async def _until(holds: Callable[[], Awaitable[bool]]) -> None:
    while not await holds():
        await asyncio.sleep(0.02)


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        os.kill(pid, number)


def _must(holds: bool, otherwise: str) -> None:
    if not holds:
        raise WrongError(otherwise)
