"""Sessions in SQL: listing, reading and forking."""

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from parley.core.errors import SessionNotFound
from parley.core.ports import Claim, SessionFilter, StorageLimits, Window
from parley.core.sessions import history, storage
from parley.core.sessions.history import TurnSize
from parley.core.sessions.search import folded, query_words, title_part
from parley.core.usage.tokens import estimate_tokens
from parley.stores import paging, records
from parley.stores.imports import ImportRows
from parley.stores.postgres import search
from parley.stores.postgres.claims import end_claim
from parley.stores.postgres.database import Connection
from parley.stores.postgres.rows import Now, now
from parley.stores.postgres.storage import account_space
from parley.v1.message_pb2 import Message
from parley.v1.sessions_pb2 import Session, SessionMessage

_FIELDS = "id, model, created, updated, turn_count, forked_from, title, labels"
_SESSION = f"SELECT {_FIELDS} FROM parley.sessions WHERE id = $1 AND account = $2 AND deleted IS NULL"


def _listing(more: str = "") -> str:
    """Returns the statement of a list; `more` is a further condition."""
    return f"""
SELECT {_FIELDS} FROM parley.sessions
WHERE account = $1 AND (updated, id) < ($2, $3) AND updated >= $4
AND (
  $5::text[] IS NULL OR model = ANY($5)
  OR EXISTS (SELECT FROM unnest($9::text[]) AS start WHERE starts_with(model, start))
)
AND deleted IS NULL
AND ($7::jsonb IS NULL OR labels::jsonb @> $7) AND ($8::text[] IS NULL OR labels::jsonb ?& $8)
{more}
ORDER BY updated DESC, id DESC LIMIT $6
"""


_SESSIONS = _listing()
_SEARCH = _listing("""
AND (position($11::text IN coalesce(folded_title, lower(title))) > 0 OR id IN (
  SELECT session_id FROM parley.turn_words WHERE words @@ $10::text::tsquery
))
""")
_FOR_UPDATE = "SELECT title, labels FROM parley.sessions WHERE id = $1 AND account = $2 AND deleted IS NULL FOR UPDATE"
_UPDATE = f"UPDATE parley.sessions SET title = $2, labels = $3, folded_title = $4 WHERE id = $1 RETURNING {_FIELDS}"
# One statement reads one snapshot: between two statements, a turn could end after its request messages were read.
_LATEST = """
SELECT message FROM (
  SELECT message, turn, position, sum(octet_length(message)) OVER (ORDER BY turn DESC, position DESC) AS total
  FROM (
    SELECT message, turn, position FROM parley.messages
    WHERE session_id = $1
    AND (SELECT state FROM parley.turns WHERE session_id = $1 AND number = turn) = 'completed'
    AND EXISTS (SELECT FROM parley.sessions WHERE id = $1 AND account = $2 AND deleted IS NULL)
    ORDER BY turn DESC, position DESC LIMIT $3
  ) AS latest
) AS sized WHERE total <= $4 ORDER BY turn, position
"""
_MESSAGES = """
SELECT message, turn, position, state, reason, created, usage, metadata, receipt, found
FROM (
  SELECT message, turn, position, found FROM (
    SELECT message, turn, position, sum(octet_length(message) + (
        SELECT coalesce(octet_length(metadata), 0) + CASE WHEN position BETWEEN asked - 1 AND asked THEN
          coalesce(octet_length(usage), 0) + coalesce(octet_length(receipt), 0) ELSE 0 END
        FROM parley.turns WHERE session_id = $1 AND number = turn
      )) OVER (ORDER BY turn, position) AS total,
      row_number() OVER (ORDER BY turn, position) AS place, count(*) OVER () AS found
    FROM (
      SELECT message, turn, position FROM parley.messages
      WHERE session_id = $1 AND (turn, position) > ($2::bigint, $3::bigint)
      AND EXISTS (SELECT FROM parley.sessions WHERE id = $1 AND account = $6 AND deleted IS NULL)
      ORDER BY turn, position LIMIT $4::bigint + 1
    ) AS found
  ) AS sized WHERE place = 1 OR (place <= $4::bigint AND total <= $5)
) AS page, LATERAL (
  SELECT state, reason, created, metadata, CASE WHEN position = asked THEN usage END AS usage,
    CASE
      WHEN position = asked THEN receipt
      WHEN position = asked - 1 AND receipt IS NOT NULL AND (
        SELECT answer.position FROM parley.messages AS answer
        WHERE answer.session_id = $1 AND answer.turn = number AND answer.position = asked
      ) IS NULL THEN receipt
    END AS receipt
  FROM parley.turns WHERE session_id = $1 AND number = turn
  OFFSET 0 -- forces a lookup by key for each message, even without statistics of the tables
) AS turn_of_message
ORDER BY turn, position
"""
_FORK = f"""
WITH origin AS (
  SELECT * FROM parley.sessions WHERE id = $1 AND account = $2 AND deleted IS NULL
), copied AS MATERIALIZED (
  SELECT turns.* FROM origin, parley.turns WHERE session_id = $1 AND number <= $4 AND state = 'completed'
), copied_messages AS MATERIALIZED (
  SELECT messages.* FROM copied JOIN parley.messages ON messages.session_id = $1 AND turn = number
), made AS (
  INSERT INTO parley.sessions
    (id, account, model, created, updated, turn_count, completed_messages, lease_fence, forked_from, bytes, title,
    labels, folded_title)
  SELECT $3, account, model, clock.now, clock.now, (SELECT coalesce(max(number), 0) FROM copied),
    (SELECT count(*) FROM copied_messages), 0, id,
    (SELECT coalesce(sum(octet_length(message)), 0) FROM copied_messages), title, labels, folded_title
  FROM origin, (SELECT {now(5)} AS now) AS clock
  RETURNING {_FIELDS}
), turns AS (
  INSERT INTO parley.turns
    (session_id, number, state, created, asked, messages, tokens, bytes, continues, metadata, usage, receipt)
  SELECT $3, number, state, created, asked, messages, tokens, bytes, continues, metadata, usage, receipt FROM copied
), messages AS (
  INSERT INTO parley.messages (session_id, turn, position, message, system)
  SELECT $3, turn, position, message, system FROM copied_messages
)
SELECT * FROM made
"""
_FORK_SIZE = """
SELECT coalesce(sum(messages), 0)::bigint, coalesce(sum(bytes), 0)::bigint, coalesce(sum((
  SELECT sum(octet_length(message)) FROM parley.messages WHERE messages.session_id = $1 AND turn = number
)), 0)::bigint FROM parley.turns
WHERE session_id = $1 AND number <= $2 AND state = 'completed'
"""
_IMPORT = """
INSERT INTO parley.sessions (id, account, model, created, updated, turn_count, completed_messages, forked_from, title,
  labels, folded_title, bytes, lease_fence)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 0) ON CONFLICT (id) DO NOTHING RETURNING id
"""
_IMPORT_TURN = """
INSERT INTO parley.turns (session_id, number, state, reason, created, asked, messages, tokens, bytes, continues,
  metadata, usage, receipt)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
"""
_IMPORT_MESSAGE = """
INSERT INTO parley.messages (session_id, turn, position, message, system) VALUES ($1, $2, $3, $4, $5)
"""
_HISTORY_SIZES = """
SELECT number, messages, tokens, continues, (
  SELECT coalesce(sum(octet_length(message)), 0)::bigint FROM parley.messages WHERE session_id = $1 AND system
) AS system_bytes
FROM parley.turns
WHERE session_id = $1 AND state = 'completed'
AND EXISTS (SELECT FROM parley.sessions WHERE id = $1 AND account = $2 AND deleted IS NULL)
ORDER BY number DESC LIMIT $3
"""


async def find_session(db: Connection, account: str, session_id: str) -> Session:
    """Reads one session. Raises SessionNotFound."""
    row = await db.fetchrow(_SESSION, session_id, account)
    if row is None:
        raise SessionNotFound(session_id)
    return records.session(row)


async def list_sessions(
    db: Connection, account: str, chosen: SessionFilter, page_size: int, after: Sequence[Any]
) -> tuple[list[Session], str | None]:
    """Reads a page. `after` is the sort key of the preceding row, or empty."""
    # The list is in descending order, so the earlier of the filter's end and the preceding row is its upper bound.
    newest = (inf if chosen.updated_before is None else float(chosen.updated_before), "")
    before = min(newest, tuple(after)) if after else newest
    oldest = -inf if chosen.updated_after is None else float(chosen.updated_after)
    # A database text has no NUL character, and so has no model of a session.
    models = None if chosen.models is None else [model for model in chosen.models if "\0" not in model]
    exact = {name: value for name, value in chosen.labels.items() if value is not None}
    names = [name for name in chosen.labels if name not in exact] or None
    prefixes = [prefix for prefix in chosen.prefixes if "\0" not in prefix]
    values = [account, *before, oldest, models, page_size + 1, records.wanted_labels(exact), names, prefixes]
    if chosen.query is None:
        found = await db.fetch(_SESSIONS, *values)
    else:
        words = search.match(query_words(account, chosen.query))
        found = await db.fetch(_SEARCH, *values, words, title_part(chosen.query))
    page = found[:page_size]
    token = paging.encode(page[-1]["updated"], page[-1]["id"]) if len(found) > page_size else None
    return [records.session(row) for row in page], token


async def update_session(
    db: Connection, account: str, session_id: str, title: str | None, labels: Mapping[str, str | None]
) -> Session:
    """Changes the title and the labels. Raises SessionNotFound, InvalidRequest."""
    async with db.transaction():
        stored = await db.fetchrow(_FOR_UPDATE, session_id, account)
        if stored is None:
            raise SessionNotFound(session_id)
        new_title = stored["title"] if title is None else title or None
        merged = records.merged_labels(stored["labels"], labels)
        row = await db.fetchrow(_UPDATE, session_id, new_title, merged, folded(new_title or "") or None)
    assert row is not None  # noqa: S101 - for the type checker
    return records.session(row)


async def list_messages(
    db: Connection, account: str, session_id: str, page_size: int, after: Sequence[Any]
) -> tuple[list[SessionMessage], str | None]:
    """Reads a page. `after` is the sort key of the preceding row. Raises SessionNotFound."""
    turn, position = after
    page = await db.fetch(_MESSAGES, session_id, turn, position, page_size, paging.MAX_PAGE_BYTES, account)
    if not page:
        await find_session(db, account, session_id)
    more = bool(page) and page[0]["found"] > len(page)
    token = paging.encode(page[-1]["turn"], page[-1]["position"]) if more else None
    return [records.session_message(tuple(row)[:-1]) for row in page], token


async def latest_messages(db: Connection, account: str, session_id: str, count: int, max_bytes: int) -> list[Message]:
    """Reads the latest messages of completed turns, oldest first."""
    found = await db.fetch(_LATEST, session_id, account, count, max_bytes)
    return [Message.FromString(row["message"]) for row in found]


async def history_tokens(db: Connection, account: str, session_id: str, window: Window) -> int:
    """Estimates the tokens that the session adds to the prompt of its next turn; 0 if it does not exist."""
    found = await db.fetch(_HISTORY_SIZES, session_id, account, window.max_messages or window.load_messages)
    if not found:
        return 0
    tokens = history.window_tokens((TurnSize(*row) for row in found), window)
    return tokens + estimate_tokens(found[0]["system_bytes"])


async def import_session(db: Connection, account: str, imported: ImportRows, limits: StorageLimits) -> bool:
    """Adds a session; returns whether its key was free. Raises StorageLimitExceeded."""
    storage.require_session_space(limits, 0, imported.bytes)
    async with db.transaction(), account_space(db, account, limits, sessions=1, added=imported.bytes):
        if await db.fetchval(_IMPORT, *imported.session) is None:
            return False
        await db.executemany(_IMPORT_TURN, imported.turns)
        await db.executemany(_IMPORT_MESSAGE, imported.messages)
        await search.include(db, account, imported.updated)
    return True


async def fork_session(  # noqa: PLR0913, PLR0917 - the port's arguments
    db: Connection,
    account: str,
    session_id: str,
    new_id: str,
    through_turn: int | None,
    now: Now,
    claim: Claim | None,
    limits: StorageLimits,
) -> Session:
    """Copies the completed turns. Raises SessionNotFound, InvalidRequest, StorageLimitExceeded, TurnLost."""
    if claim is None:
        return await _fork(db, account, session_id, new_id, through_turn, now, limits)
    async with db.transaction():
        fork = await _fork(db, account, session_id, new_id, through_turn, now, limits)
        await end_claim(db, claim, fork.SerializeToString(), now, new_id)
        return fork


async def _fork(  # noqa: PLR0913, PLR0917 - the port's arguments
    db: Connection,
    account: str,
    session_id: str,
    new_id: str,
    through_turn: int | None,
    now: Now,
    limits: StorageLimits,
) -> Session:
    through = records.last_forked(await find_session(db, account, session_id), through_turn)
    size = await db.fetchrow(_FORK_SIZE, session_id, through)
    assert size is not None  # noqa: S101 - for the type checker
    messages, counted, stored = size
    records.require_forkable(messages, counted)
    storage.require_session_space(limits, 0, stored)
    async with account_space(db, account, limits, sessions=1, added=stored):
        fork = await db.fetchrow(_FORK, session_id, account, new_id, through, now)
    if fork is None:
        raise SessionNotFound(session_id)
    return records.session(fork)
