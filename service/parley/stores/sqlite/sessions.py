"""Sessions in SQL: each function is a job of the writer, or a read."""

import json
from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

import apsw

from parley.core.errors import SessionNotFound
from parley.core.ports import SessionFilter, StorageLimits, Window
from parley.core.sessions import history, storage
from parley.core.sessions.history import TurnSize
from parley.core.sessions.search import folded, query_words, title_part
from parley.core.usage.tokens import estimate_tokens
from parley.stores import paging, records
from parley.stores.imports import ImportRows
from parley.stores.sqlite import search
from parley.stores.sqlite.rows import column, rows
from parley.v1.message_pb2 import Message
from parley.v1.sessions_pb2 import Session, SessionMessage

_SESSION = "SELECT id, model, created, updated, turn_count, forked_from, title, labels FROM sessions"
_ONE_SESSION = f"{_SESSION} WHERE id = ? AND account = ? AND deleted IS NULL"


def _listing(more: str = "") -> str:
    """Returns the statement of a list; `more` is further conditions."""
    return f"""
{_SESSION}
WHERE account = :account AND (updated, id) < (:before, :before_id) AND updated >= :after
AND (
  :models IS NULL OR model IN (SELECT value FROM json_each(:models))
  OR EXISTS (SELECT 1 FROM json_each(:prefixes) WHERE substr(model, 1, length(value)) = value)
) AND deleted IS NULL
{more}
ORDER BY updated DESC, id DESC LIMIT :limit
"""


def _with_labels() -> str:
    return """
AND NOT EXISTS (
  SELECT 1 FROM json_each(:labels) AS wanted WHERE NOT EXISTS (
    SELECT 1 FROM json_each(sessions.labels) AS label
    WHERE label.key = wanted.key AND (wanted.value IS NULL OR label.value = wanted.value)
  )
)
"""


def _with_words() -> str:
    return """
AND (instr(folded_title, :text) OR id IN (
  SELECT session_id FROM indexed_turns WHERE id IN (SELECT rowid FROM turn_words WHERE turn_words MATCH :words)
))
"""


_SESSIONS = _listing()
_MESSAGES = """
SELECT message, turn, position, state, reason, created, iif(position = asked, usage, NULL), metadata,
  CASE
    WHEN position = asked THEN receipt
    WHEN position = asked - 1 AND receipt IS NOT NULL AND NOT EXISTS (
      SELECT 1 FROM messages AS answer
      WHERE answer.session_id = turns.session_id AND answer.turn = number AND answer.position = asked
    ) THEN receipt
  END
FROM messages CROSS JOIN turns ON turns.session_id = messages.session_id AND number = turn
WHERE messages.session_id = ? AND (turn, position) > (?, ?)
AND EXISTS (SELECT 1 FROM sessions WHERE id = ? AND account = ? AND deleted IS NULL)
ORDER BY turn, position LIMIT ?
"""
_SIZED = (0, 6, 7, 8)  # message, usage, metadata, receipt
_LEASE_EXPIRES = "SELECT lease_expires FROM sessions WHERE id = ? AND lease_expires > ?"
_FORK_SIZE = """
SELECT coalesce(sum(messages), 0), coalesce(sum(bytes), 0), coalesce(sum((
  SELECT sum(length(message)) FROM messages WHERE messages.session_id = turns.session_id AND turn = number
)), 0)
FROM turns WHERE session_id = ? AND number <= ? AND state = 'completed'
"""
_STORED = "SELECT sessions, bytes FROM storage WHERE account = ?"
_SIZES = """
SELECT number, messages, tokens, continues, 0 FROM turns
WHERE session_id = ? AND state = 'completed' ORDER BY number DESC
"""
_SYSTEM_BYTES = "SELECT coalesce(sum(length(message)), 0) FROM messages WHERE session_id = ? AND system"

_FORK = """
INSERT INTO sessions (id, account, model, created, updated, turn_count, lease_fence, forked_from, bytes, title, labels,
  folded_title)
SELECT :new, account, model, :now, :now, 0, 0, id, :bytes, title, labels, folded_title FROM sessions WHERE id = :id
"""
_FORK_TURNS = """
INSERT INTO turns
  (session_id, number, state, created, asked, messages, tokens, bytes, continues, metadata, usage, receipt)
SELECT :new, number, state, created, asked, messages, tokens, bytes, continues, metadata, usage, receipt
FROM turns WHERE session_id = :id AND number <= :through AND state = 'completed'
"""
_LATEST = """
SELECT length(message), message
FROM turns CROSS JOIN messages ON messages.session_id = turns.session_id AND turn = number
WHERE turns.session_id = ?1 AND state = 'completed'
AND EXISTS (SELECT 1 FROM sessions WHERE id = ?1 AND account = ?2 AND deleted IS NULL)
ORDER BY number DESC, position DESC LIMIT ?3
"""
_FORK_MESSAGES = """
INSERT INTO messages (session_id, turn, position, message, system)
SELECT :new, turn, position, message, system
FROM turns CROSS JOIN messages ON messages.session_id = turns.session_id AND turn = number
WHERE turns.session_id = :id AND number <= :through AND state = 'completed'
"""
_IMPORT = """
INSERT INTO sessions (id, account, model, created, updated, turn_count, completed_messages, forked_from, title, labels,
  folded_title, bytes, lease_fence)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0) ON CONFLICT DO NOTHING RETURNING id
"""
_IMPORT_TURN = """
INSERT INTO turns (session_id, number, state, reason, created, asked, messages, tokens, bytes, continues, metadata,
  usage, receipt)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_IMPORT_MESSAGE = "INSERT INTO messages (session_id, turn, position, message, system) VALUES (?, ?, ?, ?, ?)"
_COUNT_FORKED = """
UPDATE sessions SET completed_messages = ?,
  turn_count = (SELECT coalesce(max(number), 0) FROM turns WHERE session_id = sessions.id)
WHERE id = ?
"""


def find_session(db: apsw.Connection, account: str, session_id: str) -> Session:
    """Reads one session. Raises SessionNotFound."""
    for row in rows(db, _ONE_SESSION, (session_id, account)):
        return records.session(row)
    raise SessionNotFound(session_id)


def list_sessions(
    db: apsw.Connection, account: str, chosen: SessionFilter, page_size: int, after: Sequence[Any]
) -> tuple[list[Session], str | None]:
    """Reads a page. `after` is the sort key of the preceding row, or empty."""
    # The list is in descending order, so the earlier of the filter's end and the preceding row is its upper bound.
    newest = (inf if chosen.updated_before is None else float(chosen.updated_before), "")
    before, before_id = min(newest, tuple(after)) if after else newest
    values: dict[str, Any] = {
        "account": account,
        "models": None if chosen.models is None else json.dumps(sorted(chosen.models)),
        "prefixes": json.dumps(chosen.prefixes),
        "after": -inf if chosen.updated_after is None else chosen.updated_after,
        "before": before,
        "before_id": before_id,
        "limit": page_size + 1,
    }
    more = ""
    if chosen.labels:
        values["labels"], more = records.wanted_labels(chosen.labels), _with_labels()
    if chosen.query is not None:
        values |= {"words": search.match(query_words(account, chosen.query)), "text": title_part(chosen.query)}
        more += _with_words()
    found = rows(db, _listing(more) if more else _SESSIONS, values)
    page = found[:page_size]
    token = paging.encode(page[-1][3], page[-1][0]) if len(found) > page_size else None
    return [records.session(row) for row in page], token


def update_session(
    db: apsw.Connection, account: str, session_id: str, title: str | None, labels: Mapping[str, str | None]
) -> Session:
    """Changes the title and the labels. Raises SessionNotFound, InvalidRequest."""
    find_session(db, account, session_id)
    if title is not None:
        values = (title or None, folded(title) or None, session_id)
        db.execute("UPDATE sessions SET title = ?, folded_title = ? WHERE id = ?", values)
    if labels:
        stored = column(db, "SELECT labels FROM sessions WHERE id = ?", (session_id,))[0]
        changed = records.merged_labels(stored, labels)
        db.execute("UPDATE sessions SET labels = ? WHERE id = ?", (changed, session_id))
    return find_session(db, account, session_id)


def list_messages(
    db: apsw.Connection, account: str, session_id: str, page_size: int, after: Sequence[Any]
) -> tuple[list[SessionMessage], str | None]:
    """Reads a page. `after` is the sort key of the preceding row. Raises SessionNotFound."""
    turn, position = after
    page: list[Any] = []
    size = 0
    cursor = db.execute(_MESSAGES, (session_id, turn, position, session_id, account, page_size + 1))
    more = False
    for row in cursor:
        size += sum(len(row[column]) for column in _SIZED if row[column])
        if more := len(page) == page_size or (bool(page) and size > paging.MAX_PAGE_BYTES):
            break
        page.append(row)
    cursor.close()
    if not page:
        find_session(db, account, session_id)
    token = paging.encode(page[-1][1], page[-1][2]) if more else None
    return [records.session_message(row) for row in page], token


def latest_messages(db: apsw.Connection, account: str, session_id: str, count: int, max_bytes: int) -> list[Message]:
    """Reads the latest messages of completed turns, oldest first."""
    found: list[Message] = []
    for size, message in db.execute(_LATEST, (session_id, account, count)):
        max_bytes -= size
        if max_bytes < 0:
            break
        found.append(Message.FromString(message))
    return found[::-1]


def fork_session(  # noqa: PLR0913, PLR0917 - what a fork depends on
    db: apsw.Connection,
    account: str,
    session_id: str,
    new_id: str,
    through_turn: int | None,
    limits: StorageLimits,
    now: float,
) -> None:
    """Copies the completed turns up to `through_turn`. Raises InvalidRequest, StorageLimitExceeded."""
    through = records.last_forked(find_session(db, account, session_id), through_turn)
    messages, counted, size = rows(db, _FORK_SIZE, (session_id, through))[0]
    records.require_forkable(messages, counted)
    storage.require_session_space(limits, 0, size)
    require_account_space(db, account, limits, sessions=1, added=size)
    values = {"new": new_id, "id": session_id, "through": through, "now": now, "bytes": size}
    for statement in (_FORK, _FORK_TURNS, _FORK_MESSAGES):
        db.execute(statement, values)
    db.execute(_COUNT_FORKED, (db.changes(), new_id))


def import_session(db: apsw.Connection, account: str, imported: ImportRows, limits: StorageLimits) -> bool:
    """Adds a session; returns whether its key was free. Raises StorageLimitExceeded."""
    storage.require_session_space(limits, 0, imported.bytes)
    require_account_space(db, account, limits, sessions=1, added=imported.bytes)
    if not rows(db, _IMPORT, imported.session):
        return False
    db.executemany(_IMPORT_TURN, imported.turns)
    db.executemany(_IMPORT_MESSAGE, imported.messages)
    search.include(db, account, imported.updated)
    return True


def require_account_space(
    db: apsw.Connection, account: str, limits: StorageLimits, *, sessions: int, added: int
) -> None:
    """Raises StorageLimitExceeded if the account cannot store so many sessions and bytes."""
    if storage.limits_account(limits):
        found = rows(db, _STORED, (account,))
        use = storage.StorageUse(*found[0]) if found else storage.StorageUse()
        storage.require_account_space(limits, account, use, sessions=sessions, added=added)


def history_tokens(db: apsw.Connection, account: str, session_id: str, window: Window) -> int:
    """Estimates the tokens that the session adds to the prompt of its next turn; 0 if it does not exist."""
    if not rows(db, _ONE_SESSION, (session_id, account)):
        return 0
    cursor = db.execute(_SIZES, (session_id,))
    tokens = history.window_tokens(map(TurnSize._make, cursor), window)
    cursor.close()
    return tokens + estimate_tokens(column(db, _SYSTEM_BYTES, (session_id,))[0])


def lease_remaining(db: apsw.Connection, session_id: str, now: float) -> float:
    """Returns for how many seconds a turn still holds the lease of the session; 0 if it is free."""
    return max((expires - now for expires in column(db, _LEASE_EXPIRES, (session_id, now))), default=0.0)
