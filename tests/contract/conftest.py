"""Contract tests: one suite for all stores and one for all backends.

Stores are real databases on disk. Backends connect to a real HTTP server that follows a script (`tests.upstream`), and
llama.cpp's backend to the built-in model.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from parley.backends.openai.backend import OpenAI
from parley.stores.sqlite import SqliteStore
from tests.contract.backends import KEY
from tests.postgres import Server, serving
from tests.upstream import ScriptedUpstream

# The suite of stores is no test module, so pytest would not rewrite its assertions.
pytest.register_assert_rewrite("tests.contract.stores")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The path of the store's file."""
    return tmp_path / "parley.db"


@pytest.fixture
async def store(file: Path) -> AsyncIterator[SqliteStore]:
    """A store with the real clock."""
    new_store = SqliteStore(file)
    yield new_store
    await new_store.close()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """A PostgreSQL server shared by the tests that do not stop or reconfigure it."""
    with serving() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: Server) -> str:
    """An empty database."""
    return postgres_server.empty()


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    """A scripted HTTP server."""
    with ScriptedUpstream() as server:
        yield server


@pytest_asyncio.fixture
async def backend(upstream: ScriptedUpstream) -> AsyncIterator[OpenAI]:
    """The OpenAI backend, connected to the scripted upstream."""
    made = OpenAI(upstream.url, KEY)
    yield made
    await made.close()
