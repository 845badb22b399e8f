"""The reaper in SQL. Rows that another reaper has locked are skipped."""

from parley.stores.postgres.database import Connection
from parley.stores.postgres.rows import Now, now
from parley.stores.postgres.turn_statements import CHANNEL

_CRASHED = f"""
WITH over AS MATERIALIZED (
  SELECT id FROM parley.sessions WHERE lease_expires <= {now(1)} ORDER BY lease_expires LIMIT $2 FOR UPDATE SKIP LOCKED
), taken AS (
  UPDATE parley.sessions SET lease_expires = NULL, lease_fence = lease_fence + 1
  FROM over WHERE sessions.id = over.id
  RETURNING sessions.id, turn_count, awaited = lease_fence - 1 AS awaited
), crashed AS (
  UPDATE parley.turns SET state = 'incomplete', reason = 'crashed' FROM taken
  WHERE session_id = taken.id AND number = turn_count AND state = 'in_progress'
)
SELECT CASE WHEN awaited THEN pg_notify('{CHANNEL}', id) END FROM taken
"""
_CLAIMS = f"""
WITH old AS MATERIALIZED (
  SELECT account, method, key FROM parley.claims
  WHERE updated < {now(1)} - $2::float8 AND (lease_expires IS NULL OR lease_expires <= {now(1)})
  ORDER BY updated LIMIT $3 FOR UPDATE SKIP LOCKED
)
DELETE FROM parley.claims USING old
WHERE claims.account = old.account AND claims.method = old.method AND claims.key = old.key RETURNING claims.key
"""

_CLOCK = f"SELECT {now(1)}"


async def database_time(db: Connection, now: Now) -> float:
    """Returns the database's clock in Unix seconds."""
    return float(await db.fetchval(_CLOCK, now))


async def reap_crashed(db: Connection, now: Now, limit: int) -> int:
    """Marks turns with an expired lease as crashed and returns their number.

    The new fence prevents late writes by their workers.
    """
    # A suspended server executes the statement when it continues. By then all leases have expired, and the connection
    # is closed: the transaction is never committed.
    async with db.transaction():
        return len(await db.fetch(_CRASHED, now, limit))


async def reap_claims(db: Connection, age: float, now: Now, limit: int) -> int:
    """Deletes keys that were last updated more than `age` seconds ago and are not held; returns their number."""
    return len(await db.fetch(_CLAIMS, now, age, limit))
