"""Which database keeps the sessions and keys: the one that the configuration names."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from parley.config import SqliteConfig, StoreConfig
from parley.core.errors import StoreUnavailable
from parley.core.ports import Store
from parley.stores.migrations import migrations, mismatch
from parley.stores.sqlite import SqliteStore
from parley.stores.sqlite.database import upgrade as upgrade_file


def store_file(config: StoreConfig, state_dir: Path) -> Path | None:
    """Returns where the store's file is, or will be; None where it is no file."""
    if not isinstance(config, SqliteConfig):
        return None
    return state_dir / "parley.db" if config.path is None else config.path.expanduser().absolute()


def may_exist(config: StoreConfig, state_dir: Path) -> bool:
    """Tells whether there may be a store already, without making one."""
    file = store_file(config, state_dir)
    return file is None or file.exists()


@asynccontextmanager
async def open_store(config: StoreConfig, state_dir: Path, *, allow_unavailable: bool = False) -> AsyncIterator[Store]:
    """Opens the store, makes its tables if need be, and closes it in the end.

    `allow_unavailable`: a server that cannot be reached yet, or a file that was there and is missing, is no error; the
    store finds it later. Raises StoreUnavailable.
    """
    store = await _open(config, state_dir, allow_unavailable=allow_unavailable)
    try:
        yield store
    finally:
        await store.close()


async def upgrade_store(config: StoreConfig, state_dir: Path) -> tuple[int, int]:
    """Takes the store through the migrations that it lacks; returns its versions before and after.

    Raises StoreUnavailable, also where the tables are not Parley's, or a later one's.
    """
    if isinstance(config, SqliteConfig):
        file = _file(config, state_dir)
        before, after = upgrade_file(file)
        if wrong := mismatch(after, len(migrations("parley.stores.sqlite"))):
            raise StoreUnavailable(f"{file}: {wrong}")
        return before, after
    from parley.stores.postgres import upgrade

    return await upgrade(config.url, pooled=config.pooling == "transaction")


async def _open(config: StoreConfig, state_dir: Path, *, allow_unavailable: bool) -> Store:
    if isinstance(config, SqliteConfig):
        return SqliteStore(_file(config, state_dir), allow_unavailable=allow_unavailable)
    # Who keeps to a file needs no driver for a server.
    from parley.stores.postgres import PostgresStore

    pooled = config.pooling == "transaction"
    return await PostgresStore.open(config.url, config.pool, pooled=pooled, allow_unavailable=allow_unavailable)


def _file(config: SqliteConfig, state_dir: Path) -> Path:
    file = store_file(config, state_dir)
    assert file is not None  # noqa: S101 - for the type checker
    return file
