"""Fixtures: a PostgreSQL server that tests may stop, and a store with short timeouts."""

from collections.abc import AsyncIterator, Iterator

import pytest

from parley.stores.postgres import PostgresStore
from tests.contract.postgres_outage.recovery import PATIENT, SHORT
from tests.postgres import Server, serving


@pytest.fixture(scope="package")
def server() -> Iterator[Server]:
    """A server that tests may stop; each test leaves it running."""
    with serving("max_connections=20") as running:
        yield running


@pytest.fixture
def url(server: Server) -> str:
    """A database without tables."""
    return server.empty()


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresStore]:
    """A store with short timeouts."""
    new_store = await PostgresStore.open(url, 8, timeouts=SHORT)
    yield new_store
    await new_store.close()


@pytest.fixture
async def patient(url: str) -> AsyncIterator[PostgresStore]:
    """A store whose calls wait."""
    new_store = await PostgresStore.open(url, 8, timeouts=PATIENT)
    yield new_store
    await new_store.close()
