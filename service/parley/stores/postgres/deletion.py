"""Deletion of sessions in SQL."""

from parley.core.errors import SessionBusy, SessionNotFound
from parley.core.ports import Claim
from parley.stores.postgres.cache import remove_of_sessions
from parley.stores.postgres.claims import end_claim
from parley.stores.postgres.database import Connection
from parley.stores.postgres.rows import Now, now
from parley.stores.purging import BATCH_ROWS, END, PurgeCursor, batch_end

# The new fence prevents writes by a worker that was suspended past its lease.
_MARK = f"""
WITH found AS MATERIALIZED (
  SELECT id, CASE WHEN lease_expires IS NULL THEN 0 ELSE greatest(lease_expires - {now(3)}, $4::float8) END
    AS lease_remaining
  FROM parley.sessions WHERE id = $1 AND account = $2 AND deleted IS NULL FOR UPDATE
), marked AS (
  UPDATE parley.sessions SET deleted = {now(3)}, lease_fence = lease_fence + 1, lease_expires = NULL
  FROM found WHERE sessions.id = found.id AND lease_remaining <= 0
)
SELECT lease_remaining FROM found
"""
_MARK_OLD = f"""
WITH old AS MATERIALIZED (
  SELECT id FROM parley.sessions WHERE updated < {now(1)} - $2::float8 AND lease_expires IS NULL AND deleted IS NULL
  ORDER BY updated LIMIT $3 FOR UPDATE SKIP LOCKED
)
UPDATE parley.sessions SET deleted = {now(1)}, lease_fence = lease_fence + 1
FROM old WHERE sessions.id = old.id RETURNING sessions.id
"""
_FIND = "SELECT id FROM parley.sessions WHERE deleted IS NOT NULL ORDER BY deleted LIMIT 1 FOR UPDATE SKIP LOCKED"
_LOCK = "SELECT id FROM parley.sessions WHERE id = $1 AND deleted IS NOT NULL FOR UPDATE SKIP LOCKED"
_CLEAR_REPLIES = f"""
WITH kept AS MATERIALIZED (
  SELECT account, method, key FROM parley.claims WHERE session_id = $1 LIMIT {BATCH_ROWS} FOR UPDATE
)
UPDATE parley.claims SET reply = NULL, session_id = NULL FROM kept
WHERE claims.account = kept.account AND claims.method = kept.method AND claims.key = kept.key RETURNING claims.key
"""
_MESSAGES = f"""
SELECT turn, position, octet_length(message) FROM parley.messages
WHERE session_id = $1 AND (turn, position) >= ($2, $3) ORDER BY turn, position LIMIT {BATCH_ROWS + 1}
"""
_REMOVE_MESSAGES = """
DELETE FROM parley.messages WHERE session_id = $1 AND (turn, position) >= ($2, $3) AND (turn, position) < ($4, $5)
"""
_REMOVE_TURNS = "DELETE FROM parley.turns WHERE session_id = $1 AND number >= $2 AND number < $3"
_REMOVE_SESSION = "DELETE FROM parley.sessions WHERE id = $1"


async def mark_deleted(  # noqa: PLR0913, PLR0917 - the port's arguments
    db: Connection, account: str, session_id: str, now: Now, grace: float, claim: Claim | None, reply: bytes
) -> None:
    """Hides the session from all readers, removes its kept answers and stores the reply.

    Args:
        db: The connection.
        account: The account.
        session_id: The session.
        now: The current time.
        grace: The seconds for which also an expired lease is held, see `Pool.lease_grace`.
        claim: The claim of the call's idempotency key; None for none.
        reply: The reply.

    Raises:
        SessionNotFound: The account has no such session.
        SessionBusy: A turn is in progress.
        TurnLost: The claim is no longer held.
    """
    async with db.transaction():
        await _mark(db, account, session_id, now, grace)
        await remove_of_sessions(db, [session_id])
        if claim is not None:
            await end_claim(db, claim, reply, now)


async def _mark(db: Connection, account: str, session_id: str, now: Now, grace: float) -> None:
    found = await db.fetchrow(_MARK, session_id, account, now, grace)
    if found is None:
        raise SessionNotFound(session_id)
    if found["lease_remaining"] > 0:
        raise SessionBusy(session_id, found["lease_remaining"])


async def mark_old(db: Connection, age: float, now: Now, limit: int) -> int:
    """Marks sessions whose latest turn began over `age` seconds ago and is not in progress. Returns their number."""
    async with db.transaction():
        marked = [row["id"] for row in await db.fetch(_MARK_OLD, now, age, limit)]
        if marked:
            await remove_of_sessions(db, marked)
        return len(marked)


async def find_deleted(db: Connection) -> str | None:
    """Returns the session with the earliest deletion that has rows and that no other worker is purging, or None."""
    session_id: str | None = await db.fetchval(_FIND)
    return session_id


async def purge_batch(db: Connection, session_id: str, cursor: PurgeCursor) -> PurgeCursor | None:
    """Removes rows of a deleted session from a cursor on.

    Returns:
        The cursor of the next batch, which skips the removed rows; None once the session is removed, or while another
        worker is purging it.
    """
    async with db.transaction():
        if await db.fetchval(_LOCK, session_id) is None:
            return None
        replies = await db.fetch(_CLEAR_REPLIES, session_id)
        end = batch_end([tuple(row) for row in await db.fetch(_MESSAGES, session_id, *cursor)])
        await db.execute(_REMOVE_MESSAGES, session_id, *cursor, *end)
        await db.execute(_REMOVE_TURNS, session_id, cursor.turn, end.turn)
        if end != END or len(replies) == BATCH_ROWS:
            return end
        await db.execute(_REMOVE_SESSION, session_id)
        return None
