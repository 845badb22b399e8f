"""A short run of killed workers and databases. `make faults` runs it longer."""

from pathlib import Path

from tests.faults import scenarios
from tests.faults.scenarios import Database

SEED = 4


async def test_kills_lose_nothing(store: Database | None, tmp_path: Path) -> None:
    """After workers and the database were killed, every acknowledged turn is stored once and in order."""
    found = await scenarios.kills(tmp_path, SEED, workers=2, databases=1 if store else 0, database=store)
    assert found["turns"] > 0
    assert found["retries"] > 0
