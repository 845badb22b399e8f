"""Opens the store that the configuration selects."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from parley.config import SqliteConfig, StoreConfig
from parley.core.errors import StoreUnavailable
from parley.core.ports import Store
from parley.stores.known import known_identity, remember
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
async def open_store(config: StoreConfig, state_dir: Path) -> AsyncIterator[Store]:
    """Opens the store, creates its tables if necessary, and closes it at the end.

    A store that the state directory has used before is not created anew.

    Args:
        config: The configuration of the store.
        state_dir: The state directory, which holds the SQLite file by default.

    Raises:
        StoreUnavailable: The store cannot be opened, is lost, or was replaced by another one.
    """
    identity = known_identity(state_dir, _name(config, state_dir))
    store = await _open(config, state_dir, allow_unavailable=False, identity=identity)
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def open_existing_store(config: StoreConfig, state_dir: Path, identity: str | None) -> AsyncIterator[Store]:
    """Opens the store of a service, and closes it at the end.

    A missing or unreachable store is not created; every call fails until it is available.

    Args:
        config: The configuration of the store.
        state_dir: The state directory, which holds the SQLite file by default.
        identity: The identity of the store, see `create_store`; None if it is unknown yet.

    Raises:
        StoreUnavailable: The schema of the store has another version.
    """
    store = await _open(config, state_dir, allow_unavailable=True, identity=identity)
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def open_known_store(config: StoreConfig, state_dir: Path) -> AsyncIterator[Store]:
    """Opens the store that a state directory has used, as a service does: nothing is created or upgraded.

    Raises StoreUnavailable, also later: its schema has another version, or it is another store than before.
    """
    identity = known_identity(state_dir, _name(config, state_dir))
    async with open_existing_store(config, state_dir, identity) as store:
        yield store


def is_new(config: StoreConfig, state_dir: Path) -> bool:
    """Returns whether the state directory has never used the store."""
    return known_identity(state_dir, _name(config, state_dir)) is None


async def create_store(config: StoreConfig, state_dir: Path) -> str:
    """Creates the store if it is new, checks that it is available, and records that it exists.

    Returns:
        The identity of the store, which its backups share.

    Raises:
        StoreUnavailable: The store cannot be opened, is lost, or was replaced by another one.
    """
    async with open_store(config, state_dir) as store:
        await store.check()
        identity = await store.identity()
    with suppress(OSError):  # a store that can be written while its state directory cannot
        remember(state_dir, _name(config, state_dir), identity)
    return identity


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


def oldest_worker() -> int:
    """Returns the oldest version whose workers the current schema of PostgreSQL supports."""
    return max(step.oldest_worker for step in migrations("parley.stores.postgres"))


async def _open(config: StoreConfig, state_dir: Path, *, allow_unavailable: bool, identity: str | None) -> Store:
    if isinstance(config, SqliteConfig):
        return SqliteStore(_file(config, state_dir), allow_unavailable=allow_unavailable, identity=identity)
    # Imported here so that SQLite does not load the PostgreSQL driver.
    from parley.stores.postgres import PostgresStore, Timeouts

    pooled = config.pooling == "transaction"
    return await PostgresStore.open(
        config.url,
        config.pool,
        pooled=pooled,
        distributed=config.distributed,
        timeouts=Timeouts(wait=(config.wait or 0.0) if allow_unavailable else 0.0),  # a command has a user who waits
        allow_unavailable=allow_unavailable,
        identity=identity,
    )


def _name(config: StoreConfig, state_dir: Path) -> str:
    """Returns the name of the store among those that the state directory has used."""
    if isinstance(config, SqliteConfig):
        return str(_file(config, state_dir))
    from parley.stores.postgres.database import database_name

    return database_name(config.url)


def _file(config: SqliteConfig, state_dir: Path) -> Path:
    file = store_file(config, state_dir)
    assert file is not None  # noqa: S101 - for the type checker
    return file
