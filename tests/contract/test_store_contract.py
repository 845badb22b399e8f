"""Runs the contract of stores on SQLite and PostgreSQL: real databases on disk, with a settable clock."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest

from parley.core.errors import SessionNotFound
from parley.core.ports import Store
from parley.core.sessions.reaper import Reaper
from parley.stores.postgres import PostgresStore
from parley.stores.purging import PURGE_SECONDS
from parley.stores.sqlite import SqliteStore
from tests import processes
from tests.contract.stores import (
    AlertContract,
    CacheContract,
    ChosenIdContract,
    ClaimContract,
    Clock,
    DeletionContract,
    ForkContract,
    ImportContract,
    KeyContract,
    LifeContract,
    LimitContract,
    LongContract,
    ReaperContract,
    ReceiptContract,
    ResentContract,
    SearchContract,
    SessionContract,
    StorageContract,
    TurnContract,
    UsageContract,
    WaitContract,
    WindowContract,
    begin,
    complete,
    converse,
)
from tests.contract.stores.cache import found, kept
from tests.contract.stores.deletion import HIDDEN, MANY, Rows
from tests.postgres import Server

DATABASE = "contract"
"""A separate database, whose tables no test changes."""


@pytest.fixture
def clock() -> Clock:
    """The clock of both stores."""
    return Clock()


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """The path or the URL of the test's database."""
    if request.param == "sqlite":
        return tmp_path / "parley.db"
    server: Server = request.getfixturevalue("postgres_server")
    return server.without_rows(DATABASE)


async def _open(database: Path | str, clock: Clock, purge_seconds: float = PURGE_SECONDS) -> Store:
    """Opens the store of another worker on the test's database."""
    if isinstance(database, Path):
        return SqliteStore(database, clock, purge_seconds=purge_seconds)
    return await PostgresStore.open(database, clock=clock, purge_seconds=purge_seconds)


@pytest.fixture
async def store(database: Path | str, clock: Clock) -> AsyncIterator[Store]:
    """One worker's store."""
    new_store = await _open(database, clock)
    yield new_store
    await new_store.close()


@pytest.fixture
async def second(store: Store, database: Path | str, clock: Clock) -> AsyncIterator[Store]:
    """Another worker's store on the same database."""
    del store  # creates the database
    new_store = await _open(database, clock)
    yield new_store
    await new_store.close()


@pytest.fixture
async def marking(store: Store, database: Path | str, clock: Clock) -> AsyncIterator[Store]:
    """The store of a worker that removes no rows after a deletion, as if it were killed."""
    del store
    new_store = await _open(database, clock, 0.0)
    yield new_store
    await new_store.close()


@pytest.fixture
def hidden_rows(store: Store, database: Path | str, request: pytest.FixtureRequest) -> Rows:
    """Counts the remaining messages of deleted sessions."""
    del store

    def count() -> int:
        if isinstance(database, Path):
            return int(apsw.Connection(str(database)).execute(HIDDEN.format("")).get)
        server: Server = request.getfixturevalue("postgres_server")
        return int(server.sql(HIDDEN.format("parley."), DATABASE))

    return count


class TestTurns(TurnContract):
    """Runs the contract of turns."""


class TestSessions(SessionContract):
    """Runs the contract of sessions."""


class TestDeletion(DeletionContract):
    """Runs the contract of deletion."""

    async def test_killed_in_the_middle(self, store: Store, database: Path | str, hidden_rows: Rows) -> None:
        """A session is hidden even if the deleting worker is killed; another worker's reaper removes its rows."""
        for number in range(4):
            await complete(store, await begin(store, "s", *["q"] * MANY, new=number == 0), "a")
        command = [sys.executable, "-m", "tests.contract.deleting_worker", str(database), "s"]
        worker = subprocess.Popen(command, cwd=Path(__file__).parents[2])  # noqa: ASYNC220 - it does not block
        processes.until(lambda: hidden_rows() > 0 or worker.poll() is not None, "the session is marked")
        worker.kill()
        worker.wait()
        with pytest.raises(SessionNotFound):
            await store.get_session("ada", "s")
        async with asyncio.timeout(60):
            while hidden_rows() > 0:  # PostgreSQL may still run the last statement of the killed worker
                await Reaper(store, None).reap()


class TestWindows(WindowContract):
    """Runs the contract of windows."""


class TestResent(ResentContract):
    """Runs the contract of resent histories."""


class TestForks(ForkContract):
    """Runs the contract of forks."""


class TestChosenIds(ChosenIdContract):
    """Runs the contract of sessions whose ids callers choose."""


class TestSearch(SearchContract):
    """Runs the contract of titles, labels and searches."""


class TestImports(ImportContract):
    """Runs the contract of exports and imports of accounts."""


class TestClaims(ClaimContract):
    """Runs the contract of idempotency keys."""


class TestReaper(ReaperContract):
    """Runs the contract of the reaper."""


class TestReceipts(ReceiptContract):
    """Runs the contract of receipts."""


class TestWaiting(WaitContract):
    """Runs the contract of waiting."""


class TestKeys(KeyContract):
    """Runs the contract of keys."""


class TestLimits(LimitContract):
    """Runs the contract of limits."""


class TestAlerts(AlertContract):
    """Runs the contract of alerts."""


class TestUsage(UsageContract):
    """Runs the contract of usage."""


class TestStorage(StorageContract):
    """Runs the contract of the limits of what is stored."""


class TestLong(LongContract):
    """Runs the contract of long sessions."""


class TestLife(LifeContract):
    """Runs the contract of opening and closing."""


class TestCache(CacheContract):
    """Runs the contract of kept answers."""

    async def test_a_worker_that_knows_no_cache(
        self, store: Store, database: Path | str, request: pytest.FixtureRequest
    ) -> None:
        """A worker of an earlier version, which deletes only the rows of a session, deletes its answers, too."""
        await converse(store, "s", "q", "a", new=True)
        assert await store.keep_answer(kept("a", session="s"))
        assert await store.keep_answer(kept("b"))
        delete = "DELETE FROM {}sessions WHERE id = 's'"
        if isinstance(database, Path):
            older = apsw.Connection(str(database))
            older.pragma("foreign_keys", True)
            older.execute(delete.format(""))
        else:
            server: Server = request.getfixturevalue("postgres_server")
            await asyncio.to_thread(server.sql, delete.format("parley."), DATABASE)
        assert ["b"] == await found(store, "a", "b")
