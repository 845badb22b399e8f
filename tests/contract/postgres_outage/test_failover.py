"""Calls that wait while PostgreSQL is away for some seconds, as during a failover."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import inf
from pathlib import Path
from types import ModuleType
from typing import Any

import asyncpg
import pytest

import parley.stores.postgres
from parley.config import PostgresConfig
from parley.core.errors import KeyInUse, SessionBusy, StoreUnavailable
from parley.core.ports import Claim, Window
from parley.core.sessions.reaper import Reaper
from parley.stores.open import open_existing_store, open_store
from parley.stores.postgres import PostgresStore, Timeouts, availability, claims, limits, reaper, turn_writes
from parley.stores.postgres.database import Connection
from tests.contract.postgres_outage.recovery import back, without_its_standby
from tests.contract.stores import LEASE, Clock, all_messages, begin, charge, complete, converse, hold, key, texts
from tests.keys import event
from tests.postgres import Server

_PATIENT = Timeouts(connect=1.0, command=5.0, probe=0.05, wait=20.0)
_CUT = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'parley'"
_STORED = [("q", 1, "completed", None), ("a", 1, "completed", None)]
_LOST = asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")


@pytest.fixture
async def patient(url: str) -> AsyncIterator[PostgresStore]:
    """A store whose calls wait."""
    store = await PostgresStore.open(url, 8, timeouts=_PATIENT)
    yield store
    await store.close()


@contextmanager
def _away(server: Server) -> Iterator[None]:
    """Stops the server for the time of the context."""
    server.stop()
    try:
        yield
    finally:
        server.start()


async def _until_waiting(store: PostgresStore, count: int) -> None:
    """Waits until calls wait for the server."""
    async with asyncio.timeout(30):
        while store.statistics.waiting < count:
            await asyncio.sleep(0.01)


async def test_calls_wait_for_the_server(server: Server, patient: PostgresStore) -> None:
    """Every kind of call that begins while the server is away succeeds after it, and so does the end of a turn."""
    await patient.add_key(key(1), event)
    await converse(patient, "old", "q", "a", new=True)
    running = await begin(patient, "running", "q", new=True)
    with _away(server):
        calls: list[Coroutine[Any, Any, Any]] = [
            begin(patient, "new", "q", new=True),
            begin(patient, "old", "q2"),
            complete(patient, running, "a"),
            patient.claim("ada", "m", "k", b"digest", 10.0),
            hold(patient, charge(1)),
            patient.find_key(bytes([1]) * 32),
            patient.list_messages("ada", "old", page_size=10, page_token=None),
        ]
        tasks = [asyncio.create_task(call) for call in calls]
        await _until_waiting(patient, len(tasks))
        with pytest.raises(StoreUnavailable):
            await patient.check()  # the readiness states the truth meanwhile
    results = await asyncio.gather(*tasks)
    assert (1, 2, key(1)) == (results[0].number, results[1].number, results[5])
    assert _STORED == await all_messages(patient, "running")
    assert (0, 0) == (patient.statistics.waiting, patient.statistics.waits_failed)
    assert patient.statistics.waits_ended >= len(tasks)


async def test_a_service_waits_and_a_command_does_not(url: str, tmp_path: Path) -> None:
    """Workers wait for the configured time; a command reports an outage at once."""
    config = PostgresConfig(kind="postgres", url=url, wait=7.0)
    async with open_store(config, tmp_path) as command, open_existing_store(config, tmp_path, None) as service:
        waits = [store._database.timeouts.wait for store in (command, service)]  # type: ignore[attr-defined] # noqa: SLF001 - the effect takes seconds
    assert [0.0, 7.0] == waits


async def test_writes_that_hang(server: Server, url: str) -> None:
    """While commits hang, those that were sent are repeated, and those that wait for a connection go on waiting."""
    times = Timeouts(connect=2.0, command=2.0, probe=0.05, verify=0.5, wait=20.0)
    store = await PostgresStore.open(url, 2, timeouts=times)
    with without_its_standby(server):
        turns = [asyncio.create_task(begin(store, f"s{number}", "q", new=True)) for number in range(2)]
        keys = [asyncio.create_task(store.claim("ada", "m", f"k{number}", b"", 10.0)) for number in range(4)]
        await asyncio.sleep(3 * times.command / 2)
    await asyncio.gather(*turns, *keys)
    await store.close()


async def test_the_wait_is_bounded(server: Server, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call waits for the configured time; beyond a number of calls, and in a long outage, it fails at once."""
    store = await PostgresStore.open(url, 8, timeouts=Timeouts(connect=1.0, command=1.0, probe=0.05, wait=0.5))
    loop = asyncio.get_running_loop()

    async def failing() -> float:
        began = loop.time()
        with pytest.raises(StoreUnavailable):
            await begin(store, "s", "q", new=True)
        return loop.time() - began

    with _away(server), monkeypatch.context() as patched:
        patched.setattr(availability, "_LONG_OUTAGE", 1000)
        assert await failing() >= 0.5
        patched.setattr(availability, "_MAX_WAITING", 1)
        waited = sorted(await asyncio.gather(failing(), failing()))
        assert waited[0] < 0.5 <= waited[1]
        patched.undo()
        patched.setattr(availability, "_LONG_OUTAGE", 0)
        assert min([await failing() for _ in range(3)]) < 0.5
    await back(store)
    await store.close()


async def test_unknown_keys_do_not_take_all_places(
    server: Server, patient: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lookups of keys, whose callers are not known, wait in smaller numbers than other calls."""
    monkeypatch.setattr(availability, "_MAX_WAITING_LOOKUPS", 2)
    with _away(server):
        lookups = [asyncio.create_task(patient.find_key(bytes([number]) * 32)) for number in range(5)]
        call = asyncio.create_task(begin(patient, "s", "q", new=True))
        await _until_waiting(patient, 3)
        async with asyncio.timeout(10):
            while 3 != sum(one.done() for one in lookups):
                await asyncio.sleep(0.01)
        assert not call.done()
    found = await asyncio.gather(*lookups, return_exceptions=True)
    assert [None, None, *[StoreUnavailable] * 3] == [one and type(one) for one in sorted(found, key=bool)]
    assert 1 == (await call).number


async def test_a_cancelled_caller_writes_nothing(server: Server, patient: PostgresStore) -> None:
    """A caller whose deadline passes while it waits has neither a turn nor a key."""
    with _away(server):
        tasks: list[asyncio.Task[Any]] = []
        for call in (patient.claim("ada", "m", "one", b"digest", 10.0), patient.wait_available()):
            tasks.append(asyncio.create_task(call))
            await _until_waiting(patient, len(tasks))
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    await back(patient)
    assert "0" == server.sql("SELECT count(*) FROM parley.claims", "parley")


async def test_an_outage_that_needs_the_operator(server: Server, patient: PostgresStore) -> None:
    """Calls do not wait for a server that has lost its tables: it will not get them back by itself."""
    server.sql("DROP SCHEMA parley CASCADE", "parley")
    server.sql(_CUT)
    async with asyncio.timeout(10):
        while True:
            with pytest.raises(StoreUnavailable) as rejected:
                await patient.get_session("ada", "s")
            if "it has no tables of Parley" in str(rejected.value.cause):
                break
        with pytest.raises(StoreUnavailable):
            await begin(patient, "s", "q", new=True)


async def test_a_server_that_has_become_read_only(patient: PostgresStore) -> None:
    """A write that a former primary has rejected is repeated on the new one."""
    attempts = 0

    async def work(db: Connection) -> int:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            await db.execute("SET default_transaction_read_only = on")
        await db.execute("CREATE TABLE parley.probe (number integer)")
        return attempts

    assert 2 == await patient._pool.run(work)  # noqa: SLF001 - no method makes a server read-only


async def test_a_write_of_unknown_outcome(patient: PostgresStore) -> None:
    """A write that was sent is not repeated unless it has a form that may follow an execution."""
    ran: list[str] = []

    async def work(_: Connection) -> None:
        ran.append("work")
        raise _LOST

    async def again(_: Connection) -> None:
        ran.append("again")

    with pytest.raises(StoreUnavailable):
        await patient._pool.run(work)  # noqa: SLF001 - the part that repeats
    await patient._pool.run(work, again)  # noqa: SLF001 - the part that repeats
    assert ["work", "work", "again"] == ran


@pytest.mark.parametrize("committed", [True, False])
async def test_connections_lost_in_a_turn(url: str, monkeypatch: pytest.MonkeyPatch, *, committed: bool) -> None:
    """Turns whose beginning and end have lost their connections are stored once, whether or not they were committed."""
    lost = [_lose_once(monkeypatch, turn_writes, name, committed=committed) for name in ("create", "end", "lease")]
    store = await PostgresStore.open(url, 8, timeouts=_PATIENT)
    await converse(store, "s", "q", "a", new=True)
    assert _STORED == await all_messages(store, "s")
    for number, window in enumerate((Window(), Window(), Window(max_messages=2)), 2):
        lost[-1].is_lost = False
        turn = await begin(store, "s", f"q{number}", window=window)
        assert (number, "a") == (turn.number, texts(turn.history)[-1])
        await complete(store, turn, "a")
        assert all(one.is_lost for one in lost)
    assert {"completed"} == {state for _, _, state, _ in await all_messages(store, "s")}
    await store.close()


async def test_another_turn_won_the_lease(url: str, patient: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn whose connection was lost does not take the lease of another turn with the same message for its own."""
    await converse(patient, "s", "q", "a", new=True)
    lost = _lose_once(monkeypatch, turn_writes, "lease", committed=False)
    store = await PostgresStore.open(url, 8, timeouts=_PATIENT)
    lost.before = lambda: begin(patient, "s", "q2")
    with pytest.raises(SessionBusy):
        await begin(store, "s", "q2")
    assert lost.is_lost
    await store.close()


@pytest.mark.parametrize("committed", [True, False])
async def test_a_connection_lost_in_a_claim(
    patient: PostgresStore, monkeypatch: pytest.MonkeyPatch, *, committed: bool
) -> None:
    """A claim whose connection was lost holds the key, once, and gets its reply."""
    _lose_once(monkeypatch, claims, "claim", committed=committed)
    held = await patient.claim("ada", "m", "k", b"digest", LEASE)
    assert isinstance(held, Claim)
    with pytest.raises(KeyInUse):
        await patient.claim("ada", "m", "k", b"digest", LEASE)
    await patient.end_claim(held, b"reply")
    assert b"reply" == await patient.claim("ada", "m", "k", b"digest", LEASE)


async def test_an_outage_longer_than_the_leases(server: Server, url: str) -> None:
    """No turn and no key of a running worker is lost, even if all leases expired; those of a dead worker are freed."""
    clock, times = Clock(), replace(_PATIENT, lease_grace=1.0)
    first, second = [await PostgresStore.open(url, 8, clock=clock, timeouts=times) for _ in range(2)]
    running = [await begin(first, f"s{number}", "q", new=True) for number in range(3)]
    held, _ = [await first.claim("ada", "m", name, b"", LEASE) for name in ("running", "dead")]
    assert isinstance(held, Claim)
    await begin(first, "dead", "q", new=True)
    for name in ("running", "dead"):
        await hold(first, charge(1), call_id=name)

    async def renew() -> None:
        await first.renew_leases(running, [held], LEASE)
        await first.renew_calls(["running"], LEASE)

    tasks = [Reaper(store, None, 0.02) for store in (first, second)]
    for task in tasks:
        task.start()
    with _away(server):
        calls: list[Coroutine[Any, Any, Any]] = [
            begin(second, "s0", "q2"),
            second.claim("ada", "m", "running", b"", LEASE),
            second.delete_session("ada", "s1"),
        ]
        rivals = [asyncio.create_task(call) for call in calls]
        release = asyncio.create_task(first.wait_for_release("dead", 30))
        await _until_waiting(first, 1)
        await _until_waiting(second, 3)
        clock.advance(LEASE + 1)
    results = await asyncio.gather(*rivals, return_exceptions=True)
    assert [SessionBusy, KeyInUse, SessionBusy] == [type(result) for result in results]
    await renew()
    await release
    assert first._pool.lease_grace() < 0.5  # noqa: SLF001 - the wait did not end at once
    async with asyncio.timeout(30):
        while [("q", 1, "in_progress", None)] == await all_messages(second, "dead"):
            await asyncio.sleep(0.05)
        while "running" != server.sql("SELECT string_agg(id, ' ') FROM parley.running_calls", "parley"):
            await asyncio.sleep(0.05)
    for turn in running:
        await complete(first, turn, "a")
    await first.end_claim(held, b"reply")
    assert isinstance(await second.claim("ada", "m", "dead", b"", LEASE), Claim)
    for task in tasks:
        await task.stop()
    for store in (first, second):
        await store.close()


async def test_a_server_that_stops_before_it_reaps(server: Server, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reaper's statement that a suspended server executes later ends no turn: all leases have expired by then."""
    store = await PostgresStore.open(url, 8, timeouts=replace(_PATIENT, command=1.0, verify=0.2))
    turn = await begin(store, "s", "q", new=True)
    await store.reap(session_age=None, claim_age=inf, limit=9)  # prepares the statement
    await store.renew_leases([turn], [], 1.0)
    fetch = asyncpg.Connection.fetch

    async def fetch_while_suspended(db: Connection, statement: str, *values: Any) -> list[asyncpg.Record]:
        if statement == reaper._CRASHED:  # noqa: SLF001 - the statement before which the server is suspended
            server.freeze()
        return await fetch(db, statement, *values)

    monkeypatch.setattr(asyncpg.Connection, "fetch", fetch_while_suspended)
    try:
        with pytest.raises(StoreUnavailable):
            await store.reap(session_age=None, claim_age=inf, limit=9)
        await asyncio.sleep(0.3)
    finally:
        server.thaw()
    await back(store)
    await complete(store, turn, "a")
    await store.close()


async def test_a_renewal_that_loses_its_connection(patient: PostgresStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The renewal of leases is repeated: it may be executed twice."""
    turn = await begin(patient, "s", "q", new=True)
    await hold(patient, charge(1))
    _lose_once(monkeypatch, parley.stores.postgres, "renew_turns", committed=True)
    _lose_once(monkeypatch, limits, "renew", committed=True)
    await patient.renew_leases([turn], [], LEASE)
    await patient.renew_calls(["call"], LEASE)


class _LosingOnce:
    """A write whose first execution loses the connection, before or after its commit."""

    def __init__(self, write: Callable[..., Coroutine[Any, Any, Any]], *, committed: bool) -> None:
        self._write = write
        self._committed = committed
        self.is_lost = False
        self.before: Callable[[], Coroutine[Any, Any, Any]] | None = None

    async def __call__(self, *arguments: Any) -> Any:
        """Writes, or loses the connection."""
        if self.is_lost:
            return await self._write(*arguments)
        self.is_lost = True
        if self.before is not None:
            await self.before()
        if self._committed:
            await self._write(*arguments)
        raise _LOST


def _lose_once(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, *, committed: bool) -> _LosingOnce:
    """Lets the next execution of a module's write lose its connection; stores that are opened later use it."""
    write = _LosingOnce(getattr(module, name), committed=committed)
    monkeypatch.setattr(module, name, write)
    return write
