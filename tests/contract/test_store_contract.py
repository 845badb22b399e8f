"""The contract of stores, on every store that there is. Real databases on disk; only the clock is ours."""

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
from tests.postgres import Server

pytest.register_assert_rewrite("tests.contract.stores")

from tests.contract.stores import (  # noqa: E402 - only now are its asserts rewritten
    ClaimContract,
    Clock,
    DeletionContract,
    ForkContract,
    KeyContract,
    LifeContract,
    LimitContract,
    LongContract,
    ReaperContract,
    ReceiptContract,
    ResentContract,
    SessionContract,
    TurnContract,
    WaitContract,
    WindowContract,
    begin,
    complete,
)
from tests.contract.stores.deletion import HIDDEN, MANY, Rows  # noqa: E402


@pytest.fixture
def clock() -> Clock:
    """Time, as both stores see it."""
    return Clock()


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where the test's database is: a file, or a URL."""
    return tmp_path / "parley.db" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


async def _open(place: Path | str, clock: Clock, purge_seconds: float = PURGE_SECONDS) -> Store:
    """Opens one more worker's store on the test's database."""
    if isinstance(place, Path):
        return SqliteStore(place, clock, purge_seconds=purge_seconds)
    return await PostgresStore.open(place, clock=clock, purge_seconds=purge_seconds)


@pytest.fixture
async def store(place: Path | str, clock: Clock) -> AsyncIterator[Store]:
    """One worker's store."""
    new_store = await _open(place, clock)
    yield new_store
    await new_store.close()


@pytest.fixture
async def second(store: Store, place: Path | str, clock: Clock) -> AsyncIterator[Store]:
    """Another worker's store on the same database."""
    del store  # It makes the database.
    new_store = await _open(place, clock)
    yield new_store
    await new_store.close()


@pytest.fixture
async def marking(store: Store, place: Path | str, clock: Clock) -> AsyncIterator[Store]:
    """Another worker's store, which dies after every deletion before it has removed a row."""
    del store
    new_store = await _open(place, clock, 0.0)
    yield new_store
    await new_store.close()


@pytest.fixture
def hidden_rows(store: Store, place: Path | str, request: pytest.FixtureRequest) -> Rows:
    """Counts the messages of deleted sessions that are still in the database."""
    del store

    def count() -> int:
        if isinstance(place, Path):
            return int(apsw.Connection(str(place)).execute(HIDDEN.format("")).get)
        server: Server = request.getfixturevalue("postgres_server")
        return int(server.sql(HIDDEN.format("parley."), "parley"))

    return count


class TestTurns(TurnContract):
    """Turns."""


class TestSessions(SessionContract):
    """Sessions."""


class TestDeletion(DeletionContract):
    """Deletion of large sessions."""

    async def test_killed_in_the_middle(self, store: Store, place: Path | str, hidden_rows: Rows) -> None:
        """A session is gone though the worker that deletes it is killed; the reaper of another one removes its rows."""
        for number in range(4):
            await complete(store, await begin(store, "s", *["q"] * MANY, new=number == 0), "a")
        command = [sys.executable, "-m", "tests.contract.deleting_worker", str(place), "s"]
        worker = subprocess.Popen(command, cwd=Path(__file__).parents[2])  # noqa: ASYNC220 - it is started at once
        processes.until(lambda: hidden_rows() > 0 or worker.poll() is not None, "the session is marked")
        worker.kill()
        worker.wait()
        with pytest.raises(SessionNotFound):
            await store.get_session("ada", "s")
        await Reaper(store, None).reap()
        assert 0 == hidden_rows()


class TestWindows(WindowContract):
    """How much of the past goes with a turn."""


class TestResent(ResentContract):
    """Requests that repeat what the session has already."""


class TestForks(ForkContract):
    """Forks."""


class TestClaims(ClaimContract):
    """Idempotency-Keys."""


class TestReaper(ReaperContract):
    """What is cleared when it is over."""


class TestReceipts(ReceiptContract):
    """Who was asked for a turn's answer, and what came of it."""


class TestWaiting(WaitContract):
    """Waiting until a session is free."""


class TestKeys(KeyContract):
    """Keys."""


class TestLimits(LimitContract):
    """Limits."""


class TestLong(LongContract):
    """Sessions that are too long to be loaded."""


class TestLife(LifeContract):
    """Opening and closing."""
