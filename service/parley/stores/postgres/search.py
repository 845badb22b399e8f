"""The index of words in SQL."""

from collections.abc import Sequence

from parley.core.offload import offload
from parley.core.sessions import search
from parley.core.sessions.search import Word
from parley.stores.indexing import BATCH_BYTES, BATCH_TURNS, SLACK_SECONDS
from parley.stores.postgres.database import Connection
from parley.stores.postgres.rows import Now, now
from parley.v1.message_pb2 import Message

_STATE = f"""
SELECT clock.now, coalesce((SELECT updated FROM parley.index_progress WHERE account = $1 AND updated <= clock.now), 0)
  AS since, (
    SELECT min(updated) FROM parley.sessions WHERE account = $1 AND lease_expires IS NOT NULL AND deleted IS NULL
  ) AS running
FROM (SELECT {now(2)} AS now) AS clock
"""
_PENDING = """
SELECT turns.session_id, number FROM parley.sessions JOIN parley.turns ON turns.session_id = sessions.id
LEFT JOIN parley.turn_words ON turn_words.session_id = turns.session_id AND turn = number
WHERE account = $1 AND deleted IS NULL AND updated >= $2 AND state <> 'in_progress' AND turn IS NULL LIMIT $3
"""
_MESSAGES = "SELECT message FROM parley.messages WHERE session_id = $1 AND turn = $2 ORDER BY position"
_ADD = """
INSERT INTO parley.turn_words (session_id, turn, words)
SELECT session_id, number, array_to_tsvector($3::text[]) FROM parley.turns WHERE session_id = $1 AND number = $2
ON CONFLICT DO NOTHING
"""
_PROGRESS = """
INSERT INTO parley.index_progress VALUES ($1, $2) ON CONFLICT (account) DO UPDATE SET updated = excluded.updated
"""
_RETURN = "UPDATE parley.index_progress SET updated = least(updated, $2) WHERE account = $1"


async def index(db: Connection, account: str, clock: Now) -> bool:
    """Indexes turns of the account that are not indexed. Returns whether none remain."""
    # Before the turns are read: a turn that ends in between has a session that is read again next time.
    state = await db.fetchrow(_STATE, account, clock)
    assert state is not None  # noqa: S101 - for the type checker
    pending = await db.fetch(_PENDING, account, state["since"], BATCH_TURNS + 1)
    size = count = 0
    for session_id, number in pending[:BATCH_TURNS]:
        stored = [row["message"] for row in await db.fetch(_MESSAGES, session_id, number)]
        await db.execute(_ADD, session_id, number, await offload(_document, account, stored))
        size, count = size + sum(map(len, stored)), count + 1
        if size > BATCH_BYTES:
            break
    if count < len(pending):
        return False
    until = state["now"] if state["running"] is None else state["running"]
    await db.execute(_PROGRESS, account, min(state["now"] - SLACK_SECONDS, until))
    return True


async def include(db: Connection, account: str, updated: float) -> None:
    """Has the next search look at sessions whose latest turn began at that time, because one has been imported."""
    await db.execute(_RETURN, account, updated)


def match(words: Sequence[Word]) -> str:
    """Returns a query of text search for turns with all words."""
    return " & ".join(f"'{word.text}'{':*' if word.is_prefix else ''}" for word in words)


def _document(account: str, stored: Sequence[bytes]) -> list[str]:
    return search.document(account, map(Message.FromString, stored))
