"""The reaper in SQL: each function is a job of the writer."""

import apsw

from parley.stores.sqlite.rows import column, rows

_REVOKE_LEASES = """
UPDATE sessions SET lease_expires = NULL, lease_fence = lease_fence + 1
WHERE id IN (SELECT id FROM sessions WHERE lease_expires <= ? ORDER BY lease_expires LIMIT ?)
RETURNING id, turn_count
"""
_CRASHED = """
UPDATE turns SET state = 'incomplete', reason = 'crashed'
WHERE session_id = ? AND number = ? AND state = 'in_progress'
"""
_DELETE_CLAIMS = """
DELETE FROM claims WHERE fence IN (
  SELECT fence FROM claims
  WHERE updated < ? AND (lease_expires IS NULL OR lease_expires <= ?) ORDER BY updated LIMIT ?
) RETURNING fence
"""


def reap_crashed(db: apsw.Connection, now: float, limit: int) -> int:
    """Marks turns with an expired lease as crashed and returns their number.

    The new fence prevents late writes by their workers.
    """
    crashed = rows(db, _REVOKE_LEASES, (now, limit))
    db.executemany(_CRASHED, crashed)
    return len(crashed)


def reap_claims(db: apsw.Connection, before: float, now: float, limit: int) -> int:
    """Deletes keys that were last updated before `before` and are not held; returns their number."""
    return len(column(db, _DELETE_CLAIMS, (before, now, limit)))
