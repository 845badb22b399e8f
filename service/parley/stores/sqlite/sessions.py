"""Sessions in SQL: each function is one job of the writer, or one read."""

from collections.abc import Sequence
from typing import Any

import apsw

from parley.core.errors import SessionBusy, SessionNotFound, SessionOfOtherModel, TurnLost
from parley.core.ports import Turn, TurnBegin
from parley.stores import paging
from parley.v1.message_pb2 import Message
from parley.v1.sessions_pb2 import Session, SessionMessage

_CREATE = """
INSERT INTO sessions (id, account, model, created, updated, turn_count, lease_fence, lease_expires)
VALUES (:id, :account, :model, :now, :now, 1, 1, :expires)
RETURNING turn_count, lease_fence
"""
_LEASE = """
UPDATE sessions
SET updated = :now, turn_count = turn_count + 1, lease_fence = lease_fence + 1, lease_expires = :expires
WHERE id = :id AND account = :account AND model = :model AND (lease_expires IS NULL OR lease_expires <= :now)
RETURNING turn_count, lease_fence
"""
_CRASHED = """
UPDATE turns SET state = 'incomplete', reason = 'crashed'
WHERE session_id = ? AND number = ? AND state = 'in_progress'
"""
_ADD_TURN = "INSERT INTO turns (session_id, number, state, created) VALUES (?, ?, 'in_progress', ?)"
_ADD_MESSAGE = "INSERT INTO messages (session_id, turn, position, message) VALUES (?, ?, ?, ?)"
_COUNT_MESSAGES = "SELECT count(*) FROM messages WHERE session_id = ? AND turn = ?"
_HISTORY = """
SELECT message FROM turns CROSS JOIN messages ON messages.session_id = turns.session_id AND turn = number
WHERE turns.session_id = ? AND number < ? AND state = 'completed'
ORDER BY number, position
"""
_RELEASE = """
UPDATE sessions SET lease_expires = NULL WHERE id = ? AND lease_fence = ? AND lease_expires IS NOT NULL
RETURNING id
"""
_RENEW = "UPDATE sessions SET lease_expires = ? WHERE id = ? AND lease_fence = ? AND lease_expires IS NOT NULL"
_END_TURN = "UPDATE turns SET state = ?, reason = ? WHERE session_id = ? AND number = ?"

_SESSION = "SELECT id, model, created, updated, turn_count FROM sessions"
_ONE_SESSION = f"{_SESSION} WHERE id = ? AND account = ?"
_SESSIONS = f"""
{_SESSION} WHERE account = :account AND (:model IS NULL OR model = :model)
ORDER BY updated DESC, id DESC LIMIT :limit
"""
_SESSIONS_AFTER = _SESSIONS.replace("ORDER BY", "AND (updated, id) < (:updated, :after) ORDER BY")
_MESSAGES = """
SELECT message, turn, state, reason, created, position
FROM messages CROSS JOIN turns ON turns.session_id = messages.session_id AND number = turn
WHERE messages.session_id = ? AND (turn, position) > (?, ?)
ORDER BY turn, position LIMIT ?
"""
_LEASED = "SELECT 1 FROM sessions WHERE id = ? AND lease_expires > ?"
_DELETE = "DELETE FROM sessions WHERE id = ?"


def begin_turn(
    db: apsw.Connection, begin: TurnBegin, messages: Sequence[bytes], now: float, lease_seconds: float
) -> tuple[Turn, list[bytes]]:
    """Leases the session and adds the turn. Returns it and the raw history.

    Raises SessionNotFound, SessionOfOtherModel, SessionBusy.
    """
    values = {
        "id": begin.session_id,
        "account": begin.account,
        "model": begin.model,
        "now": now,
        "expires": now + lease_seconds,
    }
    leased = _rows(db, _CREATE if begin.new else _LEASE, values)
    if not leased:
        model = find_session(db, begin.account, begin.session_id).model
        raise SessionBusy(begin.session_id) if model == begin.model else SessionOfOtherModel(begin.session_id, model)
    number, fence = leased[0]
    turn = Turn(begin.session_id, number, fence)
    if not begin.new:
        db.execute(_CRASHED, (turn.session_id, number - 1))
    db.execute(_ADD_TURN, (turn.session_id, number, now))
    _append(db, turn, 0, messages)
    history = [] if begin.new else [row[0] for row in _rows(db, _HISTORY, (turn.session_id, number))]
    return turn, history


def end_turn(db: apsw.Connection, turn: Turn, state: str, reason: str | None, answer: Sequence[bytes]) -> None:
    """Appends the answer, sets the turn's state and gives the lease back. Raises TurnLost."""
    if not _rows(db, _RELEASE, (turn.session_id, turn.fence)):
        raise TurnLost
    place = (turn.session_id, turn.number)
    db.execute(_END_TURN, (state, reason, *place))
    if answer:
        _append(db, turn, _rows(db, _COUNT_MESSAGES, place)[0][0], answer)


def renew_leases(db: apsw.Connection, turns: Sequence[Turn], expires: float) -> None:
    """Extends those leases that are still these turns'."""
    db.executemany(_RENEW, [(expires, turn.session_id, turn.fence) for turn in turns])


def find_session(db: apsw.Connection, account: str, session_id: str) -> Session:
    """Reads one session. Raises SessionNotFound."""
    for row in _rows(db, _ONE_SESSION, (session_id, account)):
        return _session(row)
    raise SessionNotFound(session_id)


def list_sessions(
    db: apsw.Connection, account: str, model: str | None, page_size: int, after: Sequence[float | str]
) -> tuple[list[Session], str | None]:
    """Reads a page: `after` is the place of the row before it, or empty."""
    values: dict[str, Any] = {"account": account, "model": model, "limit": page_size + 1}
    if after:
        values |= {"updated": after[0], "after": after[1]}
    rows = _rows(db, _SESSIONS_AFTER if after else _SESSIONS, values)
    page = rows[:page_size]
    token = paging.encode(page[-1][3], page[-1][0]) if len(rows) > page_size else None
    return [_session(row) for row in page], token


def list_messages(
    db: apsw.Connection, account: str, session_id: str, page_size: int, after: Sequence[float | str]
) -> tuple[list[SessionMessage], str | None]:
    """Reads a page: `after` is the place of the row before it, or empty. Raises SessionNotFound."""
    find_session(db, account, session_id)
    turn, position = after or (0, 0)
    rows = _rows(db, _MESSAGES, (session_id, turn, position, page_size + 1))
    page = rows[:page_size]
    token = paging.encode(page[-1][1], page[-1][5]) if len(rows) > page_size else None
    return [_session_message(row) for row in page], token


def delete_session(db: apsw.Connection, account: str, session_id: str, now: float) -> None:
    """Deletes the session with all that hangs on it. Raises SessionNotFound, SessionBusy."""
    find_session(db, account, session_id)
    if _rows(db, _LEASED, (session_id, now)):
        raise SessionBusy(session_id)
    db.execute(_DELETE, (session_id,))


def _append(db: apsw.Connection, turn: Turn, position: int, messages: Sequence[bytes]) -> None:
    for place, message in enumerate(messages, position):
        db.execute(_ADD_MESSAGE, (turn.session_id, turn.number, place, message))


def _rows(db: apsw.Connection, sql: str, values: Any) -> list[tuple[Any, ...]]:
    """Runs one statement to its end."""
    return db.execute(sql, values).fetchall()


def _session(row: tuple[Any, ...]) -> Session:
    identifier, model, created, updated, turn_count = row
    return Session(
        id=identifier,
        object="chat.session",
        model=model,
        created=int(created),
        updated=int(updated),
        turn_count=turn_count,
    )


def _session_message(row: tuple[Any, ...]) -> SessionMessage:
    serialized, turn, state, reason, created, _ = row
    message = Message.FromString(serialized)
    return SessionMessage(message=message, turn=turn, state=state, reason=reason, created=int(created))
