"""A warning if a failover may lose acknowledged turns."""

from contextlib import suppress

import asyncpg
import structlog

from parley.core.errors import StoreUnavailable
from parley.stores.postgres.database import Database

# Every user sees a row per standby, but not its state. Logical subscribers and backups are not standbys.
_UNSAFE = """
SELECT count(*) FROM pg_catalog.pg_stat_replication AS sender
WHERE current_setting('synchronous_standby_names') = '' AND state IS DISTINCT FROM 'backup'
AND NOT EXISTS (
  SELECT FROM pg_catalog.pg_replication_slots AS slot WHERE slot.active_pid = sender.pid AND slot.slot_type = 'logical'
)
"""
_WARNING = (
    "a failover to a standby may lose acknowledged turns: replication is asynchronous; set synchronous_standby_names"
)

_log = structlog.get_logger()


async def warn_of_asynchronous_standbys(database: Database) -> None:
    """Logs a warning if the server has a standby that commits do not wait for. Ignores all errors of the server."""
    with suppress(StoreUnavailable, asyncpg.PostgresError, OSError, TimeoutError):
        connection = await database.connect()
        try:
            async with database.prepared(connection):
                standbys = await connection.fetchval(_UNSAFE)
        finally:
            connection.terminate()
        if standbys:
            _log.warning(_WARNING, database=database.name, standbys=standbys)
