"""Opens the store that the configuration selects."""

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
    """Returns the path of the SQLite file, which may not exist; None for another store."""
    if not isinstance(config, SqliteConfig):
        return None
    return state_dir / "parley.db" if config.path is None else config.path.expanduser().absolute()


def may_exist(config: StoreConfig, state_dir: Path) -> bool:
    """Returns whether the store may exist, without creating it."""
    file = store_file(config, state_dir)
    return file is None or file.exists()


@asynccontextmanager
async def open_store(config: StoreConfig, state_dir: Path, *, allow_unavailable: bool = False) -> AsyncIterator[Store]:
    """Opens the store, creates its tables if necessary, and closes it at the end.

    Args:
        config: The configuration of the store.
        state_dir: The state directory, which holds the SQLite file by default.
        allow_unavailable: Opens the store even if the server is unreachable or the file is missing; the store connects
            once it is available.

    Raises:
        StoreUnavailable: The store cannot be opened.
    """
    store = await _open(config, state_dir, allow_unavailable=allow_unavailable)
    try:
        yield store
    finally:
        await store.close()


async def upgrade_store(config: StoreConfig, state_dir: Path) -> tuple[int, int]:
    """Applies pending migrations and returns the schema versions before and after.

    Raises:
        StoreUnavailable: The store cannot be opened, or its tables belong to another program or a newer version.
    """
    if isinstance(config, SqliteConfig):
        file = _file(config, state_dir)
        before, after = upgrade_file(file)
        if problem := mismatch(after, len(migrations("parley.stores.sqlite"))):
            raise StoreUnavailable(f"{file}: {problem}")
        return before, after
    from parley.stores.postgres import upgrade

    return await upgrade(config.url, pooled=config.pooling == "transaction")


async def _open(config: StoreConfig, state_dir: Path, *, allow_unavailable: bool) -> Store:
    if isinstance(config, SqliteConfig):
        return SqliteStore(_file(config, state_dir), allow_unavailable=allow_unavailable)
    # Imported here so that SQLite does not load the PostgreSQL driver.
    from parley.stores.postgres import PostgresStore

    pooled = config.pooling == "transaction"
    return await PostgresStore.open(config.url, config.pool, pooled=pooled, allow_unavailable=allow_unavailable)


def _file(config: SqliteConfig, state_dir: Path) -> Path:
    file = store_file(config, state_dir)
    assert file is not None  # noqa: S101 - for the type checker
    return file
