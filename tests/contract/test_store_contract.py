"""The contract of stores, on every store that there is. Real files on disk; only the clock is ours."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from parley.core.ports import Store
from parley.stores.sqlite import SqliteStore

pytest.register_assert_rewrite("tests.contract.stores")

from tests.contract.stores import (  # noqa: E402 - only now are its asserts rewritten
    Clock,
    KeyContract,
    LifeContract,
    LimitContract,
    SessionContract,
    TurnContract,
)


@pytest.fixture
def clock() -> Clock:
    """Time, as both stores see it."""
    return Clock()


def _open(kind: str, folder: Path, clock: Clock) -> Store:
    """Opens one more worker's store on the test's database."""
    assert "sqlite" == kind
    return SqliteStore(folder / "parley.db", clock)


@pytest.fixture(params=["sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> AsyncIterator[Store]:
    """One worker's store."""
    opened = _open(request.param, tmp_path, clock)
    yield opened
    await opened.close()


@pytest.fixture
async def second(store: Store, request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> AsyncIterator[Store]:
    """Another worker's store on the same database."""
    del store  # It makes the database.
    opened = _open(request.node.callspec.params["store"], tmp_path, clock)
    yield opened
    await opened.close()


class TestTurns(TurnContract):
    """Turns."""


class TestSessions(SessionContract):
    """Sessions."""


class TestKeys(KeyContract):
    """Keys."""


class TestLimits(LimitContract):
    """Limits."""


class TestLife(LifeContract):
    """Opening and closing."""
