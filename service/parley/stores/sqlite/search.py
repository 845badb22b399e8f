"""The index of words in SQL: each function is a job of the writer, or a read."""

from collections.abc import Sequence

import apsw

from parley.core.sessions.search import Word
from parley.stores.indexing import BATCH_BYTES, BATCH_TURNS, SLACK_SECONDS, Document, Unindexed, UnindexedTurn
from parley.stores.sqlite.rows import column, rows

_PROGRESS = "SELECT updated FROM index_progress WHERE account = ?"
_PENDING = """
SELECT turns.session_id, number, updated FROM sessions CROSS JOIN turns ON turns.session_id = sessions.id
WHERE account = ? AND deleted IS NULL AND updated >= ? AND state != 'in_progress' AND NOT EXISTS (
  SELECT 1 FROM indexed_turns WHERE indexed_turns.session_id = turns.session_id AND turn = number
) ORDER BY updated LIMIT ?
"""
_MESSAGES = "SELECT message FROM messages WHERE session_id = ? AND turn = ? ORDER BY position"
_ADD = """
INSERT INTO indexed_turns (session_id, turn) SELECT session_id, number FROM turns WHERE session_id = ? AND number = ?
AND EXISTS (SELECT 1 FROM sessions WHERE id = ? AND deleted IS NULL)
ON CONFLICT DO NOTHING RETURNING id
"""
_ADD_WORDS = "INSERT INTO turn_words (rowid, words) VALUES (?, ?)"
# Leased sessions are few; SQLite would read all by their age.
_RUNNING = """
SELECT min(updated) FROM sessions INDEXED BY sessions_leased
WHERE account = ? AND lease_expires IS NOT NULL AND deleted IS NULL
"""
# Not if an import has changed the progress since it was read.
_ADVANCE = """
INSERT INTO index_progress VALUES (?, ?)
ON CONFLICT DO UPDATE SET updated = excluded.updated WHERE index_progress.updated = ?
"""
# Every import changes the value, also if there is none or a lower one.
_RETURN = "INSERT INTO index_progress VALUES (?, -1) ON CONFLICT DO UPDATE SET updated = min(updated, ?) - 1"


def read_unindexed(db: apsw.Connection, account: str, now: float) -> Unindexed:
    """Reads turns of the account that are not indexed.

    Args:
        db: The connection.
        account: The account.
        now: The wall clock. A progress later than that, before a step of the clock, is ignored.
    """
    progress = next(iter(column(db, _PROGRESS, (account,))), None)
    since = progress if progress is not None and progress <= now else 0.0
    # Before the turns are read: a turn that ends in between has a session that is read again next time.
    running = column(db, _RUNNING, (account,))[0]
    pending = rows(db, _PENDING, (account, since, BATCH_TURNS + 1))
    turns: list[UnindexedTurn] = []
    size, latest = 0, since
    until = min(now - SLACK_SECONDS, now if running is None else running)
    for session_id, number, updated in pending[:BATCH_TURNS]:
        stored = column(db, _MESSAGES, (session_id, number))
        turns.append(UnindexedTurn(session_id, number, stored))
        size, latest = size + sum(map(len, stored)), updated
        if size > BATCH_BYTES:
            break
    is_last = len(turns) == len(pending)
    return Unindexed(turns, until if is_last else min(until, latest), is_last, progress)


def add(db: apsw.Connection, documents: Sequence[Document]) -> None:
    """Indexes turns that still exist and that no other worker has indexed."""
    for session_id, number, words in documents:
        for row_id in column(db, _ADD, (session_id, number, session_id)):
            db.execute(_ADD_WORDS, (row_id, " ".join(words)))


def advance(db: apsw.Connection, account: str, found: Unindexed) -> None:
    """Records that the turns of a batch are indexed."""
    db.execute(_ADVANCE, (account, found.until, found.progress))


def include(db: apsw.Connection, account: str, updated: float) -> None:
    """Has the next search look at sessions whose latest turn began at that time, because one has been imported."""
    db.execute(_RETURN, (account, updated))


def match(words: Sequence[Word]) -> str:
    """Returns an FTS5 query for turns with all words."""
    return " AND ".join(f'"{word.text}"{"*" if word.is_prefix else ""}' for word in words)
