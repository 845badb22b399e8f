"""Turns in SQL: each function is a job of the writer."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import NamedTuple

import apsw
import orjson

from parley.core.errors import SessionBusy, SessionOfOtherModel, TurnLost
from parley.core.messages.roles import is_system
from parley.core.ports import Turn, TurnBegin, TurnEnd, Window
from parley.core.sessions import history, resent_history, storage
from parley.core.sessions.history import TurnSize
from parley.stores import records
from parley.stores.serialized import Serialized, serialize
from parley.stores.sqlite.claims import end_claim
from parley.stores.sqlite.clock import Times
from parley.stores.sqlite.limits import settle
from parley.stores.sqlite.rows import Insert, column, rows
from parley.stores.sqlite.sessions import find_session, lease_remaining, require_account_space
from parley.v1.message_pb2 import Message

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
_CRASHED = """
UPDATE turns SET state = 'incomplete', reason = 'crashed'
WHERE session_id = ? AND number = ? AND state = 'in_progress'
"""
_ADD_TURN = """
INSERT INTO turns (session_id, number, state, created, asked, messages, tokens, bytes, continues, metadata)
VALUES (?, ?, 'in_progress', ?, ?, ?, ?, ?, ?, ?)
"""
_ADD_BYTES = "UPDATE sessions SET bytes = bytes + ? WHERE id = ?"
MESSAGES = Insert("messages (session_id, turn, position, message, system)", "(?, ?, ?, ?, ?)")
"""Adds messages."""
_SIZES = """
SELECT number, messages, tokens, continues, bytes FROM turns
WHERE session_id = ? AND number < ? AND state = 'completed' ORDER BY number DESC
"""
_STORED = """
SELECT message FROM turns CROSS JOIN messages ON messages.session_id = turns.session_id AND turn = number
WHERE turns.session_id = ? AND number < ? AND state = 'completed' ORDER BY number, position
"""
_HISTORY = """
SELECT message FROM turns CROSS JOIN messages ON messages.session_id = turns.session_id AND turn = number
WHERE turns.session_id = ? AND number < ? AND number >= ? AND state = 'completed' AND NOT system
ORDER BY number, position
"""
_FIRST = """
SELECT message FROM turns CROSS JOIN messages ON messages.session_id = turns.session_id AND turn = number
WHERE turns.session_id = ? AND number < ? AND state = 'completed' AND NOT system ORDER BY number, position LIMIT ?
"""
_LATEST = """
SELECT message FROM turns CROSS JOIN messages ON messages.session_id = turns.session_id AND turn = number
WHERE turns.session_id = ? AND number < ? AND state = 'completed' AND NOT system
ORDER BY number DESC, position DESC LIMIT ?
"""
_SYSTEM = """
SELECT message FROM messages CROSS JOIN turns ON turns.session_id = messages.session_id AND number = turn
WHERE messages.session_id = ? AND turn < ? AND system AND state = 'completed' ORDER BY turn, position
"""
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


class SerializedHistory(NamedTuple):
    """The serialized history of a turn.

    Attributes:
        read: The messages that have been read.
        pieces: The first and last numbers of the ranges of turns that remain to be read.
    """

    read: list[bytes]
    pieces: Sequence[tuple[int, int]] = ()


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
    known = _bounded(db, _SYSTEM, (turn.session_id, turn.number), begin.window) if leased.has_system else []
    turn.messages = list(_new(db, turn, begin, known, leased.completed))
    stored, pieces = _history(db, turn, begin.window)
    added = sent if len(turn.messages) == len(begin.messages) else serialize(turn.messages)
    storage.require_session_space(begin.storage, leased.bytes, added.bytes)
    require_account_space(db, begin.account, begin.storage, sessions=0, added=added.bytes)
    db.execute(_ADD_BYTES, (added.bytes, turn.session_id))
    _add(db, turn, begin, added, times.wall)
    return turn, SerializedHistory(known + stored, pieces)


def read_piece(db: apsw.Connection, turn: Turn, piece: tuple[int, int]) -> list[bytes]:
    """Reads a range of the turns before this one, which do not change while the turn holds the lease."""
    first, last = piece
    return column(db, _HISTORY, (turn.session_id, last + 1, first))


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


def _history(db: apsw.Connection, turn: Turn, window: Window) -> SerializedHistory:
    """Returns the completed turns within the window, and marks the preceding turn if it has crashed."""
    key = (turn.session_id, turn.number)
    seen: list[TurnSize] = []
    with _sizes(db, key) as sizes:
        latest = next(sizes, None)
        known = sizes if latest is None else chain((latest,), sizes)
        first = history.first_turn(
            _recorded(known, seen), window, continued=history.starts_with_tool_result(turn.messages)
        )
    if latest is None or latest.number != turn.number - 1:
        db.execute(_CRASHED, (turn.session_id, turn.number - 1))
    pieces = records.pieces(seen, first)
    return SerializedHistory([] if pieces or first is None else column(db, _HISTORY, (*key, first)), pieces)


def _recorded(sizes: Iterable[TurnSize], seen: list[TurnSize]) -> Iterator[TurnSize]:
    for size in sizes:
        seen.append(size)
        yield size


def _bounded(db: apsw.Connection, sql: str, values: tuple[object, ...], window: Window) -> list[bytes]:
    """Reads messages. Raises InvalidRequest if they exceed what a turn may load."""
    found: list[bytes] = []
    size = 0
    for row in db.execute(sql, values):
        found.append(row[0])
        size += len(row[0])
        history.require_loadable(window, len(found), size)
    return found


def _new(
    db: apsw.Connection, turn: Turn, begin: TurnBegin, system_messages: Sequence[bytes], completed: int
) -> Sequence[Message]:
    """Returns the new messages; reads only as many stored messages as the request has. Raises InvalidRequest."""
    sent = begin.messages
    if completed and not begin.append and resent_history.may_repeat(sent):
        key = (turn.session_id, turn.number)
        if completed - len(system_messages) <= len(sent):  # the request's system messages may have changed
            new = resent_history.new_messages(_parsed(_bounded(db, _STORED, key, begin.window)), sent)
        else:
            first, latest = (_bounded(db, query, (*key, len(sent)), begin.window) for query in (_FIRST, _LATEST))
            past = resent_history.StoredHistory(
                _parsed(first), _parsed(latest[::-1]), _parsed(system_messages), is_complete=False
            )
            new = resent_history.new_to(past, sent)
        if len(new) < len(sent):
            return new
    if not sent or not is_system(sent[0]):
        return sent
    return resent_history.without_known_system(_parsed(system_messages), sent)


def _parsed(messages: Sequence[bytes]) -> list[Message]:
    return [Message.FromString(message) for message in messages]


@contextmanager
def _sizes(db: apsw.Connection, key: tuple[str, int]) -> Iterator[Iterator[TurnSize]]:
    """Yields an iterator over the sizes of the completed turns, newest first, which reads rows on demand."""
    cursor = db.execute(_SIZES, key)
    try:
        yield map(TurnSize._make, cursor)
    finally:
        cursor.close()


def _add(db: apsw.Connection, turn: Turn, begin: TurnBegin, added: Serialized, now: float) -> None:
    size = (len(turn.messages), *added.size, history.starts_with_tool_result(turn.messages))
    db.execute(_ADD_TURN, (turn.session_id, turn.number, now, *size, stored_metadata(begin)))
    _append(db, turn, 0, added)


def stored_metadata(begin: TurnBegin) -> str | None:
    """Returns the metadata of a turn as it is stored."""
    return orjson.dumps(dict(begin.metadata)).decode() if begin.metadata else None


def _append(db: apsw.Connection, turn: Turn, position: int, added: Serialized) -> None:
    MESSAGES.run(db, [(turn.session_id, turn.number, index, *row) for index, row in enumerate(added.rows, position)])
