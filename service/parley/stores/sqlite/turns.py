"""Turns in SQL: each function is a job of the writer."""

from collections.abc import Sequence
from typing import NamedTuple

import apsw
import orjson

from parley.core.errors import SessionBusy, SessionOfOtherModel, TurnLost
from parley.core.ports import Turn, TurnBegin, TurnEnd
from parley.core.sessions import history, storage
from parley.stores import records
from parley.stores.serialized import Serialized, serialize
from parley.stores.sqlite.claims import end_claim
from parley.stores.sqlite.clock import Times
from parley.stores.sqlite.limits import settle
from parley.stores.sqlite.rows import Insert, rows
from parley.stores.sqlite.sessions import find_session, lease_remaining, require_account_space
from parley.stores.sqlite.turn_history import SerializedHistory, new_messages, read_history, read_system

_CREATE = """
INSERT INTO sessions (id, account, model, created, updated, turn_count, lease_fence, lease_expires, bytes)
VALUES (?, ?, ?, ?, ?, 1, 1, ?, ?)
"""
_LEASE = """
UPDATE sessions
SET updated = :wall, turn_count = turn_count + 1, lease_fence = lease_fence + 1, lease_expires = :expires
WHERE id = :id AND account = :account AND model = :model AND deleted IS NULL
AND (lease_expires IS NULL OR lease_expires <= :now)
RETURNING turn_count, lease_fence, completed_messages, EXISTS (
  SELECT 1 FROM messages WHERE session_id = sessions.id AND system
), bytes
"""
_EXISTS = "SELECT 1 FROM sessions WHERE id = ? AND account = ? AND deleted IS NULL"
_IS_DELETED = "SELECT 1 FROM sessions WHERE id = ?"
_ADD_TURN = """
INSERT INTO turns (session_id, number, state, created, asked, messages, tokens, bytes, continues, metadata)
VALUES (?, ?, 'in_progress', ?, ?, ?, ?, ?, ?, ?)
"""
_ADD_BYTES = "UPDATE sessions SET bytes = bytes + ? WHERE id = ?"
MESSAGES = Insert("messages (session_id, turn, position, message, system)", "(?, ?, ?, ?, ?)")
"""Adds messages."""
_END_TURN = """
UPDATE turns SET state = ?, reason = ?, messages = messages + ?, tokens = tokens + ?, bytes = bytes + ?, usage = ?,
  receipt = ?
WHERE session_id = ? AND number = ?
"""
_RELEASE = """
UPDATE sessions SET lease_expires = NULL, completed_messages = completed_messages + ?, bytes = bytes + ?
WHERE id = ? AND lease_fence = ? AND lease_expires IS NOT NULL RETURNING id
"""
_RENEW = "UPDATE sessions SET lease_expires = ? WHERE id = ? AND lease_fence = ? AND lease_expires IS NOT NULL"


class _Leased(NamedTuple):
    """What a leased session has.

    Attributes:
        number: The number of the turn.
        fence: The fence of the lease.
        completed: The number of messages of completed turns.
        has_system: Whether some of its messages are system messages.
        bytes: The bytes of its messages.
    """

    number: int
    fence: int
    completed: int
    has_system: int
    bytes: int


def begin_turn(db: apsw.Connection, begin: TurnBegin, sent: Serialized, times: Times) -> tuple[Turn, SerializedHistory]:
    """Leases the session and adds the turn.

    Args:
        db: The writer's connection.
        begin: The turn to begin.
        sent: The serialized messages of the request.
        times: The current times and the duration of the lease.

    Returns:
        The turn and its history. `read_piece` reads the rest of a long history outside of the writer.

    Raises:
        SessionNotFound: The account has no such session.
        SessionOfOtherModel: The session belongs to another model.
        SessionBusy: Another turn holds the lease.
        InvalidRequest: No message is new, the request contradicts the session, or the history is too long.
    """
    if begin.new:
        return _create(db, begin, sent, times), SerializedHistory([])
    leased = _lease(db, begin, times)
    if leased is None:
        return _create(db, begin, sent, times), SerializedHistory([])
    storage.require_session_space(begin.storage, leased.bytes, 0)  # before a long session is read
    turn = Turn(begin.session_id, leased.number, leased.fence, messages=list(begin.messages))
    known = read_system(db, turn, begin.window) if leased.has_system else []
    turn.messages = list(new_messages(db, turn, begin, known, leased.completed))
    stored, pieces = read_history(db, turn, begin.window)
    added = sent if len(turn.messages) == len(begin.messages) else serialize(turn.messages)
    storage.require_session_space(begin.storage, leased.bytes, added.bytes)
    require_account_space(db, begin.account, begin.storage, sessions=0, added=added.bytes)
    db.execute(_ADD_BYTES, (added.bytes, turn.session_id))
    _add(db, turn, begin, added, times.wall)
    return turn, SerializedHistory(known + stored, pieces)


def end_turn(db: apsw.Connection, turn: Turn, end: TurnEnd, times: Times) -> None:
    """Appends the answer, ends the turn and its claim, releases the lease and settles the limits. Raises TurnLost."""
    request_count = len(turn.messages)
    completed = request_count + len(end.answer) if end.state == "completed" else 0
    answer = serialize(end.answer)
    if not rows(db, _RELEASE, (completed, answer.bytes, turn.session_id, turn.fence)):
        raise TurnLost
    ended = (end.state, end.reason, *answer.size, *records.usage_and_receipt(end), turn.session_id, turn.number)
    db.execute(_END_TURN, ended)
    _append(db, turn, request_count, answer)
    settle_end(db, turn.session_id, end, times)


def settle_end(db: apsw.Connection, session_id: str, end: TurnEnd, times: Times) -> None:
    """Ends the claim and settles the limits of a turn that has been written. Raises TurnLost if the claim is lost."""
    if end.claim is not None:
        # If the claim is lost, the failure of the job rolls back the preceding writes.
        end_claim(db, end.claim, end.reply if end.state == "completed" else None, session_id, times.wall)
    if end.settlement is not None:
        settle(db, end.settlement, times)


def renew_turns(db: apsw.Connection, turns: Sequence[Turn], expires: float) -> None:
    """Extends the leases that the turns still hold."""
    db.executemany(_RENEW, [(expires, turn.session_id, turn.fence) for turn in turns])


def _create(db: apsw.Connection, begin: TurnBegin, sent: Serialized, times: Times) -> Turn:
    """Creates a session with its first turn, whose number and fence are 1. Raises StorageLimitExceeded."""
    storage.require_session_space(begin.storage, 0, sent.bytes)
    require_account_space(db, begin.account, begin.storage, sessions=1, added=sent.bytes)
    wall = times.wall
    db.execute(_CREATE, (begin.session_id, begin.account, begin.model, wall, wall, times.lease_expires, sent.bytes))
    turn = Turn(begin.session_id, 1, 1, messages=list(begin.messages))
    _add(db, turn, begin, sent, wall)
    return turn


def _lease(db: apsw.Connection, begin: TurnBegin, times: Times) -> _Leased | None:
    """Leases the session. Returns None if it is to be created.

    Raises:
        SessionNotFound: The account has no such session.
        SessionOfOtherModel: The session belongs to another model.
        SessionBusy: Another turn holds the lease, or a deleted session with the id is being removed.
    """
    values = {
        "id": begin.session_id,
        "account": begin.account,
        "model": begin.model,
        "wall": times.wall,
        "now": times.lease,
        "expires": times.lease_expires,
    }
    for row in rows(db, _LEASE, values):
        return _Leased(*row)
    if begin.may_create and not rows(db, _EXISTS, (begin.session_id, begin.account)):
        if rows(db, _IS_DELETED, (begin.session_id,)):
            raise SessionBusy(begin.session_id)
        return None
    model = find_session(db, begin.account, begin.session_id).model
    if model != begin.model:
        raise SessionOfOtherModel(begin.session_id, model)
    raise SessionBusy(begin.session_id, lease_remaining(db, begin.session_id, times.lease))


def _add(db: apsw.Connection, turn: Turn, begin: TurnBegin, added: Serialized, now: float) -> None:
    size = (len(turn.messages), *added.size, history.starts_with_tool_result(turn.messages))
    db.execute(_ADD_TURN, (turn.session_id, turn.number, now, *size, stored_metadata(begin)))
    _append(db, turn, 0, added)


def stored_metadata(begin: TurnBegin) -> str | None:
    """Returns the metadata of a turn as it is stored."""
    return orjson.dumps(dict(begin.metadata)).decode() if begin.metadata else None


def _append(db: apsw.Connection, turn: Turn, position: int, added: Serialized) -> None:
    MESSAGES.run(db, [(turn.session_id, turn.number, index, *row) for index, row in enumerate(added.rows, position)])
