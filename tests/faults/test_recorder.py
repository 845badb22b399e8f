"""A short run of the recorder on each store; `make faults` runs it longer."""

from pathlib import Path

import pytest

from tests.faults.recorder import record
from tests.faults.stores import database

SEED = 20261126
NEMESES = {
    "sqlite": ["full", "clock", "kill"],
    "postgres": ["database-freeze", "clock", "database-kill"],
}


@pytest.mark.parametrize("store", NEMESES)
async def test_random_operations_violate_no_guarantee(store: str, tmp_path: Path) -> None:
    """The record of six clients at two replicas on one store, under its nemeses, has no violation."""
    with database(store) as running:
        found = await record(tmp_path, SEED, running, seconds=5, nemeses=NEMESES[store])
    assert set(NEMESES[store]) == set(found["nemeses"])
    assert found["acknowledged"] > 20
    assert found["upstream"] >= found["acknowledged"]
