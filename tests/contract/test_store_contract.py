"""The contract of stores, on every store that there is. Real databases on disk; only the clock is ours."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from parley.core.ports import Store
from parley.stores.postgres import PostgresStore
from parley.stores.sqlite import SqliteStore

pytest.register_assert_rewrite("tests.contract.stores")

from tests.contract.stores import (  # noqa: E402 - only now are its asserts rewritten
    ClaimContract,
    Clock,
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
)


@pytest.fixture
def clock() -> Clock:
    """Time, as both stores see it."""
    return Clock()


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where the test's database is: a file, or a URL."""
    return tmp_path / "parley.db" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


async def _open(place: Path | str, clock: Clock) -> Store:
    """Opens one more worker's store on the test's database."""
    return SqliteStore(place, clock) if isinstance(place, Path) else await PostgresStore.open(place, clock=clock)


@pytest.fixture
async def store(place: Path | str, clock: Clock) -> AsyncIterator[Store]:
    """One worker's store."""
    opened = await _open(place, clock)
    yield opened
    await opened.close()


@pytest.fixture
async def second(store: Store, place: Path | str, clock: Clock) -> AsyncIterator[Store]:
    """Another worker's store on the same database."""
    del store  # It makes the database.
    opened = await _open(place, clock)
    yield opened
    await opened.close()


class TestTurns(TurnContract):
    """Turns."""


class TestSessions(SessionContract):
    """Sessions."""


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
