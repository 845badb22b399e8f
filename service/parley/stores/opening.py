"""Which database keeps the sessions and keys of a state folder."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from parley.core.ports import Store
from parley.stores.sqlite import SqliteStore


def store_file(state_dir: Path) -> Path:
    """Returns where the store of a state folder is, or will be."""
    return state_dir / "parley.db"


@asynccontextmanager
async def opened(state_dir: Path) -> AsyncIterator[Store]:
    """Opens the store, makes it if need be, and closes it in the end. Raises StoreUnavailable."""
    store = SqliteStore(store_file(state_dir))
    try:
        yield store
    finally:
        await store.close()
