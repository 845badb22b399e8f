"""Calls that wait while PostgreSQL is away for some seconds, as during a failover, and leases that expire meanwhile."""

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from parley.config import PostgresConfig
from parley.core.errors import KeyInUse, SessionBusy, StoreUnavailable
from parley.core.ports import Claim
from parley.core.sessions.reaper import Reaper
from parley.stores.open import open_existing_store, open_store
from parley.stores.postgres import PostgresStore, Timeouts, availability, reaper
from parley.stores.postgres.database import Connection
from tests.contract.postgres_outage.recovery import PATIENT, back, without_its_standby
from tests.contract.stores import LEASE, Clock, all_messages, begin, charge, complete, converse, hold, key
from tests.keys import event
from tests.postgres import Server

_CUT = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'parley'"
_STORED = [("q", 1, "completed", None), ("a", 1, "completed", None)]


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


async def test_an_outage_longer_than_the_leases(server: Server, url: str) -> None:
    """No turn and no key of a running worker is lost, even if all leases expired; those of a dead worker are freed."""
    clock, times = Clock(), replace(PATIENT, lease_grace=1.0)
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
        third = await PostgresStore.open(url, 8, timeouts=times, allow_unavailable=True)
        assert third._pool.lease_grace()  # noqa: SLF001 - a replica that starts in an outage
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
    for store in (first, second, third):
        await store.close()


async def test_a_server_that_stops_before_it_reaps(server: Server, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reaper's statement that a suspended server executes later ends no turn: all leases have expired by then."""
    store = await PostgresStore.open(url, 8, timeouts=replace(PATIENT, command=1.0, verify=0.2))
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
