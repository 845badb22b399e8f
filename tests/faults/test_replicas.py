"""A short run of several workers on one store. `make faults` runs it longer."""

from pathlib import Path

from tests.faults import scenarios
from tests.faults.scenarios import Database

SEED = 4


async def test_one_commit_per_turn(store: Database | None, tmp_path: Path) -> None:
    """Each turn is committed once when several clients race for a session."""
    assert {"clients": 12, "turns": 13} == await scenarios.race(tmp_path, SEED, store, clients=12)


async def test_an_acknowledged_turn_is_readable_on_another_worker(store: Database | None, tmp_path: Path) -> None:
    """A turn that one worker acknowledges is visible to the next call to another worker."""
    assert {"times": 40} == await scenarios.replicas(tmp_path, SEED, store, 40)
