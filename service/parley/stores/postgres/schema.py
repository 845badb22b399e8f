"""The schema `parley` in the database, and its migrations."""

import asyncio
from contextlib import suppress

import asyncpg

from parley.core.errors import StoreMisconfigured, StoreUnavailable
from parley.stores.migrations import migrations
from parley.stores.postgres.database import STATE, Connection, Database, is_misconfigured, outage

# Serializes migrations of all processes; the number is arbitrary.
_LOCK = "SELECT pg_advisory_xact_lock(7012640071583061)"
LOCK_SECONDS = 2.0
"""How long a migration waits for a table: calls that need the table queue behind it meanwhile."""
LOCK_TRIES = 60
_UNLIMITED = 30 * 86400.0  # of a migration, in seconds; None would be the timeout of calls
_LOCK_PAUSE = 1.0  # between two tries, for the calls that have queued
_LOCKED = "a table is in use for too long: end the transaction that has locked it (pg_stat_activity), and upgrade again"
# The check of a new foreign key, by a join, must not read the table that it refers to.
_SETTINGS = """
SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0;
SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off
"""
# Reads the catalogs, because a lookup by to_regclass may be older than the acquisition of the lock.
_SCHEMA = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'parley') AS named, EXISTS (
    SELECT FROM pg_catalog.pg_class JOIN pg_catalog.pg_namespace AS space ON space.oid = relnamespace
    WHERE nspname = 'parley' AND relname = 'migrations'
  ) AS made
"""
_BEGIN = """
CREATE SCHEMA parley;
CREATE TABLE parley.migrations (
  number        integer PRIMARY KEY,
  made          timestamptz NOT NULL DEFAULT now(),
  oldest_worker integer -- the oldest version whose workers can use the database after the migration
);
"""
# A worker that connects waits for the change of the table until the upgrade ends, so it is made only if needed.
_ALTER = """
DO $$
BEGIN
  IF NOT EXISTS (
    SELECT FROM pg_attribute WHERE attrelid = 'parley.migrations'::regclass AND attname = 'oldest_worker'
  ) THEN
    ALTER TABLE parley.migrations ADD COLUMN oldest_worker integer;
  END IF;
END $$
"""
_DISTRIBUTED = "SELECT EXISTS (SELECT FROM pg_dist_partition WHERE logicalrelid = to_regclass('parley.sessions'))"
_STEP = "INSERT INTO parley.migrations (number, oldest_worker) VALUES ($1, $2)"


async def upgrade(database: Database) -> tuple[int, int]:
    """Applies pending migrations and returns the schema versions before and after.

    Each migration is a transaction, which also serializes concurrent upgrades; those of a new database are one. If a
    table cannot be locked in time, the migration is undone and tried again. An interrupted upgrade can be repeated. A
    newer schema is left unchanged.

    Raises:
        StoreUnavailable: The database cannot be reached, or a newer schema does not support this version of Parley.
    """
    before, state = await _migrate_when_unlocked(database)
    while state["version"] < len(migrations(__package__)):
        _, state = await _migrate_when_unlocked(database)
    database.require_supported(state)
    return before, state["version"]


async def ensure(database: Database) -> None:
    """Creates the schema if the database is new, and checks its version. Raises StoreUnavailable."""
    if database.identity is not None:
        await check(database)
        return
    _, state = await _connect_and_migrate(database, only_new=True)
    database.require_supported(state)


async def check(database: Database) -> None:
    """Checks that the database has the schema, and its version. Raises StoreUnavailable."""
    (await database.connect()).terminate()


async def _migrate_when_unlocked(database: Database) -> tuple[int, asyncpg.Record]:
    for _ in range(LOCK_TRIES):
        with suppress(asyncpg.LockNotAvailableError):
            return await _connect_and_migrate(database, only_new=False)
        await asyncio.sleep(min(_LOCK_PAUSE, LOCK_SECONDS))
    raise database.unavailable(_LOCKED)


async def _connect_and_migrate(database: Database, *, only_new: bool) -> tuple[int, asyncpg.Record]:
    """Returns the version before, and the state after, see `STATE`."""
    connection = await database.connect(check=False)
    try:
        async with connection.transaction():
            return await _migrate(connection, database, only_new=only_new)
    except (StoreUnavailable, asyncpg.LockNotAvailableError):
        raise
    except Exception as error:
        if (cause := outage(error)) is None:
            raise
        if is_misconfigured(error):
            raise StoreMisconfigured(f"{database.name}: {cause}") from error
        raise database.unavailable(cause) from error
    finally:
        connection.terminate()


async def _migrate(connection: Connection, database: Database, *, only_new: bool) -> tuple[int, asyncpg.Record]:
    found = await _row(connection, _SCHEMA)
    if only_new and found["made"]:
        state = await _row(connection, STATE)
        return state["version"], state
    await connection.execute(_SETTINGS)
    await connection.execute(_LOCK, timeout=_UNLIMITED)
    await connection.execute(f"SET LOCAL lock_timeout = {round(LOCK_SECONDS * 1000)}")
    found = await _row(connection, _SCHEMA)
    if not found["made"]:
        if found["named"]:
            raise database.wrong_schema('it has a schema "parley" that Parley did not create; rename or remove it')
        await connection.execute(_BEGIN)
    before: int = (await _row(connection, STATE))["version"]
    if before == 0 and found["made"]:  # the table and its first row are created in one transaction
        raise database.wrong_schema('the schema "parley" is incomplete; restore it, or remove it')
    if before == 0 or not only_new:
        await _apply(connection, before)
    return before, await _row(connection, STATE)


async def _apply(connection: Connection, version: int) -> None:
    """Applies the migration after a version; to a new database all."""
    pending = migrations(__package__)[version:]
    distributed = "on" if await _is_distributed(connection) else "off"
    await connection.execute(f"SET LOCAL parley.distributed = '{distributed}'")
    for step in pending[:1] if version else pending:
        await connection.execute(_ALTER)
        await connection.execute(step.sql, timeout=_UNLIMITED)
        await connection.execute(_STEP, step.number, step.oldest_worker)


async def _is_distributed(connection: Connection) -> bool:
    """Returns whether Citus distributes the sessions: what a migration adds is to be distributed, too."""
    if not await connection.fetchval("SELECT to_regclass('pg_dist_partition') IS NOT NULL"):
        return False
    return bool(await connection.fetchval(_DISTRIBUTED))


async def identity(connection: Connection) -> str:
    """Returns the identity of the tables: the time of their creation."""
    found: str = (await _row(connection, STATE))["identity"]
    return found


async def _row(connection: Connection, statement: str) -> asyncpg.Record:
    """Returns the only row of a statement."""
    row = await connection.fetchrow(statement)
    assert row is not None  # noqa: S101 - for the type checker
    return row
