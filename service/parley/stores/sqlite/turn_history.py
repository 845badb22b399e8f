"""The history of a turn in SQL: what the writer reads before a turn."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import NamedTuple

import apsw

from parley.core.messages.roles import is_system
from parley.core.ports import Turn, TurnBegin, Window
from parley.core.sessions import history, resent_history
from parley.core.sessions.history import TurnSize
from parley.stores import records
from parley.stores.sqlite.rows import column
from parley.v1.message_pb2 import Message

_CRASHED = """
UPDATE turns SET state = 'incomplete', reason = 'crashed'
WHERE session_id = ? AND number = ? AND state = 'in_progress'
"""
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


class SerializedHistory(NamedTuple):
    """The serialized history of a turn.

    Attributes:
        read: The messages that have been read.
        pieces: The first and last numbers of the ranges of turns that remain to be read.
    """

    read: list[bytes]
    pieces: Sequence[tuple[int, int]] = ()


def read_piece(db: apsw.Connection, turn: Turn, piece: tuple[int, int]) -> list[bytes]:
    """Reads a range of the turns before this one, which do not change while the turn holds the lease."""
    first, last = piece
    return column(db, _HISTORY, (turn.session_id, last + 1, first))


def read_history(db: apsw.Connection, turn: Turn, window: Window) -> SerializedHistory:
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


def read_system(db: apsw.Connection, turn: Turn, window: Window) -> list[bytes]:
    """Reads the system messages of completed turns. Raises InvalidRequest if they exceed what a turn may load."""
    return _bounded(db, _SYSTEM, (turn.session_id, turn.number), window)


def new_messages(
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
