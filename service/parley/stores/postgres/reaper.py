"""What the reaper clears, in SQL. Rows that another reaper has at hand are left to it."""

from parley.stores.postgres.database import Connection
from parley.stores.postgres.rows import Now, now
from parley.stores.postgres.turns import CHANNEL

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
_SESSIONS = """
WITH old AS MATERIALIZED (
  SELECT id FROM parley.sessions WHERE updated < $1 AND lease_expires IS NULL
  ORDER BY updated LIMIT $2 FOR UPDATE SKIP LOCKED
)
DELETE FROM parley.sessions USING old WHERE sessions.id = old.id RETURNING sessions.id
"""
_CLAIMS = f"""
WITH old AS MATERIALIZED (
  SELECT account, method, key FROM parley.claims
  WHERE updated < $1 AND (lease_expires IS NULL OR lease_expires <= {now(2)})
  ORDER BY updated LIMIT $3 FOR UPDATE SKIP LOCKED
)
DELETE FROM parley.claims USING old
WHERE claims.account = old.account AND claims.method = old.method AND claims.key = old.key RETURNING claims.key
"""


async def reap_crashed(db: Connection, now: Now, limit: int) -> int:
    """Marks turns whose lease ran out, and takes the lease away: a worker that comes late cannot write."""
    return len(await db.fetch(_CRASHED, now, limit))


async def reap_sessions(db: Connection, before: float, limit: int) -> int:
    """Deletes sessions whose latest turn began before then, unless it is running."""
    return len(await db.fetch(_SESSIONS, before, limit))


async def reap_claims(db: Connection, before: float, now: Now, limit: int) -> int:
    """Deletes keys that were answered, or given up by a worker that died, before then."""
    return len(await db.fetch(_CLAIMS, before, now, limit))
