"""Durable turns per second, and the cost of a turn by the length of its session: each store alone, in this process.

Group commit: 64 clients write turns concurrently, compared with the same 64 with a commit for each write.
Depth: a turn of sessions with 10, 1,000 and 10,000 stored turns, with the same window, alternately.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from parley.core.ports import Store, TurnBegin, TurnEnd, Window
from parley.stores.postgres import PostgresStore
from parley.stores.sqlite import SqliteStore
from parley.v1.message_pb2 import Message
from tests.load import accounting
from tests.postgres import serving

KINDS = ("durable", "depth")
STORES = ("sqlite", "postgres")
CLIENTS = 64
DEPTHS = (10, 1_000, 10_000)
_QUICK_DEPTHS = (10, 100, 1_000)
_WINDOW = Window(max_messages=20)
_TURNS_A_SESSION = 100
_LEASE_SECONDS = 60.0
_DURABLE_ROUNDS = 4
_DURABLE_SECONDS = 3.0
_ROUNDS = 9
_TURNS_A_ROUND = 60


@dataclass(frozen=True, slots=True)
class Durable:
    """Turns per second of 64 clients, grouped and with single commits: the best round of each; their ratio.

    The CPU microseconds per turn, including the store's server, are those of the same rounds. `sync_us` is the time of
    a sync of 8 KiB.
    """

    scenario: str
    store: str
    grouped: float
    one_by_one: float
    ratio: float
    grouped_cpu_us: float
    one_by_one_cpu_us: float
    yardstick_us: float
    sync_us: float


@dataclass(frozen=True, slots=True)
class Depth:
    """CPU microseconds and milliseconds of a turn by stored turns, the best of each; the ratio of last to first."""

    scenario: str
    store: str
    cpu_us: dict[int, float]
    ms: dict[int, float]
    cpu_ratio: float
    ms_ratio: float
    yardstick_us: float


async def measure(kind: str, store: str, *, quick: bool) -> Durable | Depth:
    """Measures `durable` or `depth` on one store."""
    if kind == "durable":
        return await durable(
            store, _DURABLE_SECONDS / 3 if quick else _DURABLE_SECONDS, 1 if quick else _DURABLE_ROUNDS
        )
    return await depth(store, _QUICK_DEPTHS if quick else DEPTHS)


async def durable(kind: str, seconds: float, rounds: int = 2) -> Durable:
    """Measures group commit and single commits alternately."""
    yard, sync = accounting.yardstick(), accounting.disk_yardstick()
    async with _store(kind) as (store, server):
        await _write(store, nullcontext(), seconds / 4, server)
        grouped, single = [], []
        for _round in range(rounds):
            grouped.append(await _write(store, nullcontext(), seconds, server))
            single.append(await _write(store, asyncio.Lock(), seconds, server))
            yard, sync = min(yard, accounting.yardstick()), min(sync, accounting.disk_yardstick())
    (most, cost), (least, dear) = max(grouped), max(single)
    rates = (round(most, 1), round(least, 1), round(most / least, 1))
    return Durable("durable", kind, *rates, round(cost, 1), round(dear, 1), round(yard), round(sync))


async def depth(kind: str, depths: Sequence[int] = DEPTHS) -> Depth:
    """Measures a turn at each depth."""
    yard = accounting.yardstick()
    async with _store(kind) as (store, server):
        for turns in depths:
            await _fill(store, turns)
        samples: dict[int, list[tuple[float, float]]] = {turns: [] for turns in depths}
        for number in range(_ROUNDS):
            # Each depth is measured first as often as last, so that earlier measurements affect all equally.
            start = number % len(depths)
            for turns in (*depths[start:], *depths[:start]):
                samples[turns].append(await _cost(store, f"depth-{turns}", server))
            yard = min(yard, accounting.yardstick())
    cpu = {turns: round(min(cost for cost, _ in found), 1) for turns, found in samples.items()}
    ms = {turns: round(min(took for _, took in found), 3) for turns, found in samples.items()}
    first, last = depths[0], depths[-1]
    return Depth("depth", kind, cpu, ms, round(cpu[last] / cpu[first], 2), round(ms[last] / ms[first], 2), round(yard))


async def _write(
    store: Store, one_at_a_time: AbstractAsyncContextManager[Any], seconds: float, server: int | None
) -> tuple[float, float]:
    """Lets the clients write for some seconds; returns turns per second and CPU microseconds per turn."""
    cpu, started = _cpu_ns(server), time.monotonic()
    end = started + seconds

    async def client(number: int) -> int:
        done = 0
        while time.monotonic() < end:
            session = f"{started}-{number}-{done // _TURNS_A_SESSION}"
            begin = _begin(session, new=done % _TURNS_A_SESSION == 0)
            async with one_at_a_time:
                turn = await store.begin_turn(begin, _LEASE_SECONDS)
            async with one_at_a_time:
                await store.end_turn(turn, _END)
            done += 1
        return done

    done = sum(await asyncio.gather(*(client(number) for number in range(CLIENTS))))
    return done / (time.monotonic() - started), (_cpu_ns(server) - cpu) / 1e3 / done


async def _fill(store: Store, turns: int) -> None:
    """Creates a session with this number of turns."""
    for number in range(turns):
        turn = await store.begin_turn(_begin(f"depth-{turns}", new=number == 0), _LEASE_SECONDS)
        await store.end_turn(turn, _END)


async def _cost(store: Store, session: str, server: int | None) -> tuple[float, float]:
    """Returns the CPU microseconds per turn, and the median of the milliseconds."""
    cpu, took = _cpu_ns(server), []
    for _ in range(_TURNS_A_ROUND):
        started = time.perf_counter()
        turn = await store.begin_turn(_begin(session, new=False), _LEASE_SECONDS)
        assert len(turn.history) == _WINDOW.max_messages, len(turn.history)
        await store.end_turn(turn, _END)
        took.append(time.perf_counter() - started)
    return (_cpu_ns(server) - cpu) / 1e3 / _TURNS_A_ROUND, median(took) * 1e3


def _cpu_ns(server: int | None) -> int:
    """Returns the CPU time of this process, its threads, and the store's server."""
    own = time.process_time_ns()
    if server is None:
        return own
    return own + accounting.ended_ns(server) + sum(accounting.cpu_ns(pid) for pid in accounting.tree(server))


def _begin(session: str, *, new: bool) -> TurnBegin:
    return TurnBegin("bench", "m", session, new, [_QUESTION], _WINDOW)


def _message(role: str, text: str) -> Message:
    message = Message(role=role)
    message.content.string_value = text
    return message


_QUESTION = _message("user", "What is the capital of France, and why has it been so for so long?")
_END = TurnEnd("completed", answer=[_message("assistant", "Paris; " * 30)])


@asynccontextmanager
async def _store(kind: str) -> AsyncIterator[tuple[Store, int | None]]:
    """Opens a new store; yields it, and the process id of its server, if any."""
    with _database(kind) as (database, server):
        store: Store = SqliteStore(Path(database)) if server is None else await PostgresStore.open(database)
        try:
            yield store, server
        finally:
            await store.close()


@contextmanager
def _database(kind: str) -> Iterator[tuple[str, int | None]]:
    if kind == "sqlite":
        with tempfile.TemporaryDirectory(prefix="parley-bench-") as folder:
            yield str(Path(folder) / "parley.db"), None
        return
    with serving() as server:
        yield server.empty(), server.pid
