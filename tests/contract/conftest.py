"""Contract tests: one suite for every store and one for every backend.

Stores are real databases on disk. Backends talk to a real HTTP server that follows a script (`tests.upstream`), and
llama.cpp's backend to the embedded model itself.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from parley.stores.sqlite import SqliteStore


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the store's file will be."""
    return tmp_path / "parley.db"


@pytest.fixture
async def store(file: Path) -> AsyncIterator[SqliteStore]:
    """A store with the real clock."""
    opened = SqliteStore(file)
    yield opened
    await opened.close()
