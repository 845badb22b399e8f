"""The stores of the fault tests."""

from collections.abc import Iterator

import pytest

from tests.faults.scenarios import Database
from tests.faults.stores import STORES, database


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> Iterator[Database | None]:
    """Yields a PostgreSQL server that only this test uses; None for SQLite."""
    with database(request.param) as running:
        yield running
