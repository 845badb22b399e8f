"""A short run of every fault on each store; `make faults` makes the long one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import scenarios
from tests.faults.scenarios import Database
from tests.faults.stores import STORES, database

SEED = 4


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> Iterator[Database | None]:
    """A PostgreSQL of the test's own; None for SQLite."""
    with database(request.param) as running:
        yield running


async def test_kills_lose_nothing(store: Database | None, tmp_path: Path) -> None:
    """Killing workers and the database loses, doubles and disorders no acknowledged turn."""
    found = await scenarios.kills(tmp_path, SEED, workers=3, databases=1 if store else 0, database=store)
    assert found["turns"] > 0
    assert found["retries"] > 0


async def test_one_commit_a_turn(store: Database | None, tmp_path: Path) -> None:
    """However many race for a session, each turn is committed once."""
    assert {"clients": 12, "turns": 13} == await scenarios.race(tmp_path, SEED, store, clients=12)


async def test_a_sleeper_writes_nothing(store: Database | None, tmp_path: Path) -> None:
    """A worker that slept past its lease cannot commit; the key that it had is free for another."""
    assert {"sessions": 2} == await scenarios.stopped(tmp_path, SEED, store)


async def test_what_one_acknowledges_another_reads(store: Database | None, tmp_path: Path) -> None:
    """A turn acknowledged by one worker is there in the next call to another."""
    assert {"times": 80} == await scenarios.replicas(tmp_path, SEED, store, 80)
