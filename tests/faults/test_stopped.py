"""A short run of a worker that is stopped for longer than its lease. `make faults` runs it longer."""

from pathlib import Path

from tests.faults import scenarios
from tests.faults.scenarios import Database

SEED = 4


async def test_a_stopped_worker_writes_nothing(store: Database | None, tmp_path: Path) -> None:
    """A worker that resumes after its lease has expired cannot commit; another worker can use its idempotency key."""
    assert {"sessions": 2} == await scenarios.stopped(tmp_path, SEED, store)
