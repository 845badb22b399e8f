"""Deletion of sessions in SQL: each function is a job of the writer."""

from bisect import bisect_left
from itertools import accumulate

import apsw

from parley.core.errors import SessionBusy
from parley.stores.purging import BATCH_ROWS, END, PurgeCursor, batch_end
from parley.stores.sqlite.cache import remove_of_session
from parley.stores.sqlite.rows import column, rows
from parley.stores.sqlite.sessions import find_session, lease_remaining

# The new fence prevents writes by a worker that was suspended past its lease.
_MARK = "UPDATE sessions SET deleted = ?, lease_fence = lease_fence + 1, lease_expires = NULL WHERE id = ?"
_MARK_OLD = """
UPDATE sessions SET deleted = ?, lease_fence = lease_fence + 1
WHERE id IN (
  SELECT id FROM sessions WHERE updated < ? AND lease_expires IS NULL AND deleted IS NULL ORDER BY updated LIMIT ?
) RETURNING id
"""
_FIND = "SELECT id FROM sessions WHERE deleted IS NOT NULL ORDER BY deleted LIMIT 1"
_IS_DELETED = "SELECT 1 FROM sessions WHERE id = ? AND deleted IS NOT NULL"
_CLEAR_REPLIES = """
UPDATE claims SET reply = NULL, session_id = NULL
WHERE fence IN (SELECT fence FROM claims WHERE session_id = ? LIMIT ?) RETURNING fence
"""
_MESSAGES = """
SELECT turn, position, length(message) FROM messages
WHERE session_id = ? AND (turn, position) >= (?, ?) ORDER BY turn, position LIMIT ?
"""
# Each word of a removed turn is overwritten in the index.
_INDEXED = """
SELECT indexed_turns.id, length(words) FROM indexed_turns CROSS JOIN turn_words ON turn_words.rowid = indexed_turns.id
WHERE session_id = ? ORDER BY turn LIMIT ?
"""
# Of one transaction, or one turn. Overwriting a word takes ten times as long as adding it.
_INDEXED_ROWS = 100
_INDEXED_BYTES = 16 * 1024
_REMOVE_INDEXED = "DELETE FROM indexed_turns WHERE id = ?"
_REMOVE_MESSAGES = """
DELETE FROM messages WHERE session_id = ? AND (turn, position) >= (?, ?) AND (turn, position) < (?, ?)
"""
_REMOVE_TURNS = "DELETE FROM turns WHERE session_id = ? AND number < ?"
_REMOVE_SESSION = "DELETE FROM sessions WHERE id = ?"


def mark_deleted(db: apsw.Connection, account: str, session_id: str, now: float) -> None:
    """Hides the session from all readers and removes its kept answers. Raises SessionNotFound, SessionBusy."""
    find_session(db, account, session_id)
    remaining = lease_remaining(db, session_id, now)
    if remaining:
        raise SessionBusy(session_id, remaining)
    db.execute(_MARK, (now, session_id))
    remove_of_session(db, session_id)


def mark_old(db: apsw.Connection, before: float, now: float, limit: int) -> int:
    """Marks sessions whose latest turn began before `before` and is not in progress. Returns their number."""
    marked = column(db, _MARK_OLD, (now, before, limit))
    for session_id in marked:
        remove_of_session(db, session_id)
    return len(marked)


def find_deleted(db: apsw.Connection) -> str | None:
    """Returns the session with the earliest deletion that still has rows; None if there is none."""
    return next(iter(column(db, _FIND, ())), None)


def purge_batch(db: apsw.Connection, session_id: str, cursor: PurgeCursor) -> PurgeCursor | None:
    """Removes rows of a deleted session from a cursor on.

    Returns:
        The cursor of the next batch; None once the session is removed.
    """
    if not rows(db, _IS_DELETED, (session_id,)):
        return None
    if not _remove_words(db, session_id):
        return cursor
    replies = len(column(db, _CLEAR_REPLIES, (session_id, BATCH_ROWS)))
    end = batch_end(rows(db, _MESSAGES, (session_id, *cursor, BATCH_ROWS + 1)))
    db.execute(_REMOVE_MESSAGES, (session_id, *cursor, *end))
    db.execute(_REMOVE_TURNS, (session_id, end.turn))
    if end != END or replies == BATCH_ROWS:
        return end
    db.execute(_REMOVE_SESSION, (session_id,))
    return None


def _remove_words(db: apsw.Connection, session_id: str) -> bool:
    """Removes turns from the index of words, first those with `_INDEXED_BYTES`; returns whether none remain."""
    indexed = rows(db, _INDEXED, (session_id, _INDEXED_ROWS))
    count = bisect_left(list(accumulate(size for _, size in indexed)), _INDEXED_BYTES) + 1
    db.executemany(_REMOVE_INDEXED, [(row_id,) for row_id, _ in indexed[:count]])
    return len(indexed) <= min(count, _INDEXED_ROWS - 1)
