"""The index of words in SQL."""

from collections.abc import Sequence

from parley.core.sessions.search import Word
from parley.stores.indexing import BATCH_BYTES, BATCH_TURNS, SLACK_SECONDS, Document, Unindexed, UnindexedTurn
from parley.stores.postgres.database import Connection
from parley.stores.postgres.rows import Now, now

_STATE = f"""
SELECT clock.now, (SELECT updated FROM parley.index_progress WHERE account = $1) AS progress, (
    SELECT min(updated) FROM (
      SELECT updated FROM parley.sessions WHERE account = $1 AND lease_expires IS NOT NULL AND deleted IS NULL
      OFFSET 0 -- leased sessions are few: not all by their age
    ) AS leased
  ) AS running
FROM (SELECT {now(2)} AS now) AS clock
"""
_PENDING = """
SELECT turns.session_id, number, updated FROM parley.sessions JOIN parley.turns ON turns.session_id = sessions.id
LEFT JOIN parley.turn_words ON turn_words.session_id = turns.session_id AND turn = number
WHERE account = $1 AND deleted IS NULL AND updated >= $2 AND state <> 'in_progress' AND turn IS NULL
ORDER BY updated LIMIT $3
"""
_MESSAGES = "SELECT message FROM parley.messages WHERE session_id = $1 AND turn = $2 ORDER BY position"
_ADD = """
INSERT INTO parley.turn_words (session_id, turn, words)
SELECT session_id, number, array_to_tsvector($3::text[]) FROM parley.turns WHERE session_id = $1 AND number = $2
AND EXISTS (SELECT FROM parley.sessions WHERE id = $1 AND deleted IS NULL)
ON CONFLICT DO NOTHING
"""
# Not if an import has changed the progress since it was read.
_ADVANCE = """
INSERT INTO parley.index_progress AS known VALUES ($1, $2)
ON CONFLICT (account) DO UPDATE SET updated = excluded.updated WHERE known.updated = $3
"""
# Every import changes the value, also if there is none or a lower one.
_RETURN = """
INSERT INTO parley.index_progress AS known VALUES ($1, -1)
ON CONFLICT (account) DO UPDATE SET updated = least(known.updated, $2) - 1
"""


async def read_unindexed(db: Connection, account: str, clock: Now) -> Unindexed:
    """Reads turns of the account that are not indexed."""
    # Before the turns are read: a turn that ends in between has a session that is read again next time.
    state = await db.fetchrow(_STATE, account, clock)
    assert state is not None  # noqa: S101 - for the type checker
    now, progress, running = state
    since = progress if progress is not None and progress <= now else 0.0
    until = min(now - SLACK_SECONDS, now if running is None else running)
    pending = await db.fetch(_PENDING, account, since, BATCH_TURNS + 1)
    turns: list[UnindexedTurn] = []
    size, latest = 0, since
    for session_id, number, updated in pending[:BATCH_TURNS]:
        stored = [row["message"] for row in await db.fetch(_MESSAGES, session_id, number)]
        turns.append(UnindexedTurn(session_id, number, stored))
        size, latest = size + sum(map(len, stored)), updated
        if size > BATCH_BYTES:
            break
    is_last = len(turns) == len(pending)
    return Unindexed(turns, until if is_last else min(until, latest), is_last, progress)


async def add(db: Connection, account: str, found: Unindexed, documents: Sequence[Document]) -> None:
    """Indexes turns that still exist and that no other worker has indexed."""
    for document in documents:
        await db.execute(_ADD, *document)
    await db.execute(_ADVANCE, account, found.until, found.progress)


async def include(db: Connection, account: str, updated: float) -> None:
    """Has the next search look at sessions whose latest turn began at that time, because one has been imported."""
    await db.execute(_RETURN, account, updated)


def match(words: Sequence[Word]) -> str:
    """Returns a query of text search for turns with all words."""
    return " & ".join(f"'{word.text}'{':*' if word.is_prefix else ''}" for word in words)
