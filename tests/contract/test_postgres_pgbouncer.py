"""Tests of PostgreSQL behind a real PgBouncer in transaction mode, with few server connections."""

import asyncio
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator

import pytest

from parley.core.errors import ParleyError, StoreUnavailable
from parley.core.ports import Store
from parley.stores.postgres import PostgresStore
from parley.stores.postgres.database import Timeouts
from tests.contract.stores import (
    ClaimContract,
    Clock,
    LimitContract,
    TurnContract,
    WaitContract,
    all_messages,
    converse,
    key,
)
from tests.keys import event
from tests.pgbouncer import PgBouncer, pooling
from tests.postgres import Server, serving

# asyncpg's hint about poolers, and PostgreSQL's errors about statements of another session.
ADVICE = re.compile("pgbouncer|prepared statement|statement_cache", re.IGNORECASE)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server that logs each statement with its process."""
    with serving("log_statement=all", "log_line_prefix=%p|") as running:
        yield running


@pytest.fixture(scope="module")
def transactions(server: Server) -> Iterator[PgBouncer]:
    """A pooler in transaction mode with two server connections."""
    with pooling(server, pool_mode="transaction", default_pool_size=2) as pooler:
        yield pooler


@pytest.fixture
def pooler(transactions: PgBouncer, server: Server) -> Iterator[PgBouncer]:
    """A pooler in front of a database without rows; afterwards neither its log nor the server's contains an error."""
    server.without_rows()
    before = len(server.log), len(transactions.log)
    yield transactions
    logs = server.log[before[0] :] + transactions.log[before[1] :]
    assert [] == [line for line in logs.splitlines() if "ERROR" in line and ADVICE.search(line)]


@pytest.fixture
def clock() -> Clock:
    """The clock of the stores."""
    return Clock()


async def _opened(pooler: PgBouncer, clock: Clock) -> AsyncIterator[Store]:
    store = await PostgresStore.open(pooler.url("parley"), clock=clock, pooled=True)
    yield store
    await store.close()


@pytest.fixture
async def store(pooler: PgBouncer, clock: Clock) -> AsyncIterator[Store]:
    """One worker's store."""
    async for one in _opened(pooler, clock):
        yield one


@pytest.fixture
async def second(store: Store, pooler: PgBouncer, clock: Clock) -> AsyncIterator[Store]:
    """Another worker's store on the same database."""
    del store  # creates the database
    async for one in _opened(pooler, clock):
        yield one


class TestTurns(TurnContract):
    """Runs the contract of turns."""


class TestClaims(ClaimContract):
    """Runs the contract of idempotency keys."""


class TestWaiting(WaitContract):
    """Runs the contract of waiting, which polls without a listening connection."""


class TestLimits(LimitContract):
    """Runs the contract of limits."""


class TestTransactionMode:
    """Tests of the requirements of a pooler in transaction mode."""

    @pytest.mark.parametrize("size", [1, 2])
    async def test_a_small_pool(self, server: Server, size: int, caplog: pytest.LogCaptureFixture) -> None:
        """Many turns of three workers share one or two connections: they wait, and none fails."""
        server.empty()
        with pooling(server, pool_mode="transaction", default_pool_size=size) as pooler:
            url, times = pooler.url("parley"), Timeouts(connect=60.0, command=60.0)
            stores = [await PostgresStore.open(url, pooled=True, timeouts=times) for _ in range(3)]

            async def talk(number: int) -> None:
                for turn in range(3):
                    await converse(stores[number % 3], f"s{number}", "q", "a", new=turn == 0)

            await asyncio.gather(*map(talk, range(60)))
            assert [6] * 60 == [len(await all_messages(stores[0], f"s{number}")) for number in range(60)]
            for store in stores:
                await store.close()
            assert [] == [line for line in pooler.log.splitlines() if re.search("WARN|ERROR", line)]
        assert [] == [record for record in caplog.records if ADVICE.search(record.getMessage())]

    async def test_statements_need_no_session(self, server: Server, pooler: PgBouncer) -> None:
        """Statements are unnamed and run within transactions.

        PgBouncer tracks named statements from 1.21 on only (`max_prepared_statements`). All versions run a transaction
        on one server connection, which suffices for unnamed statements. The contracts of keys, deletion and the reaper,
        whose operations are here, run on PostgreSQL without a pooler.
        """
        before = len(server.log)
        store = await PostgresStore.open(pooler.url("parley"), pooled=True)
        await store.add_key(key(1), event)
        await converse(store, "s", "q", "a", new=True)
        await store.fork_session("ada", "s", "f", None)
        await store.delete_session("ada", "s")
        while await store.purge():
            pass
        await store.list_keys(page_size=9)
        await store.reap(session_age=9.0, claim_age=9.0, limit=9)
        await store.check()
        await store.close()
        events: dict[str, list[str]] = defaultdict(list)
        for process, text in re.findall(r"^(\d+)\|LOG:  (.*)$", server.log[before:], re.MULTILINE):
            events[process].append(text)
        executed = 0
        for ofprocess in events.values():
            open_transaction = False
            for text in ofprocess:
                if match := re.match("statement: (BEGIN|COMMIT|ROLLBACK)", text):
                    open_transaction = match[1] == "BEGIN"
                elif text.startswith("execute"):
                    executed += 1
                    assert text.startswith("execute <unnamed>")
                    assert open_transaction, text
        assert executed > 10

    async def test_a_restart(self, server: Server) -> None:
        """A pooler that is killed under load fails the current calls, but loses no acknowledged turn."""
        server.empty()
        with pooling(server, pool_mode="transaction", default_pool_size=2) as pooler:
            store = await PostgresStore.open(pooler.url("parley"), pooled=True)
            acknowledged: dict[str, int] = defaultdict(int)
            stopped = asyncio.Event()

            async def talk(number: int) -> None:
                round_ = 0
                while not stopped.is_set():
                    session = f"s{number}-{(round_ := round_ + 1)}"
                    try:
                        await converse(store, session, "q", "a", new=True)
                        acknowledged[session] += 1
                    except ParleyError:
                        await asyncio.sleep(0.05)

            talks = [asyncio.create_task(talk(number)) for number in range(8)]
            for _ in range(2):
                await _grows(acknowledged)
                pooler.kill()
                await asyncio.sleep(0.1)
                pooler.start()
            await _grows(acknowledged)
            stopped.set()
            await asyncio.gather(*talks)
            for session in acknowledged:
                assert 2 == len(await all_messages(store, session))
            await store.close()

    async def test_the_wrong_mode(self, server: Server, transactions: PgBouncer) -> None:
        """Without `pooling: transaction` the error names the setting in one line."""
        server.empty()
        await (await PostgresStore.open(transactions.url("parley"), pooled=True)).close()
        store = PostgresStore(transactions.url("parley"))

        causes: list[str] = []
        async with asyncio.timeout(30):
            while not causes:
                found = await asyncio.gather(*[store.list_keys(page_size=9) for _ in range(10)], return_exceptions=True)
                failures = [str(one.cause) for one in found if isinstance(one, StoreUnavailable)]
                causes = [cause for cause in failures if "set `pooling: transaction` under `store`" in cause]
        assert "\n" not in causes[0]
        await store.close()


async def _grows(acknowledged: dict[str, int]) -> None:
    """Waits for twenty more turns."""
    wanted = len(acknowledged) + 20
    async with asyncio.timeout(60):
        while len(acknowledged) < wanted:
            await asyncio.sleep(0.01)
