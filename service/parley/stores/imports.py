"""The rows of imported sessions, shared by the databases."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import orjson

from parley.core.session_ids import chosen_key, is_chosen
from parley.core.sessions import history
from parley.core.sessions.search import folded
from parley.stores import records
from parley.stores.serialized import serialize
from parley.v1.sessions_pb2 import Session, SessionMessage

_CRASHED = ("incomplete", "crashed")


class ImportRows(NamedTuple):
    """The rows of an imported session.

    Attributes:
        session: id, account, model, created, updated, turn_count, completed_messages, forked_from, title, labels,
            folded_title, bytes.
        turns: session_id, number, state, reason, created, asked, messages, tokens, bytes, continues, metadata, usage,
            receipt.
        messages: session_id, turn, position, message, system.
        bytes: The bytes of the messages, and of the metadata, usage and receipts, which the caller has written.
        updated: The time of the latest turn.
    """

    session: tuple[Any, ...]
    turns: list[tuple[Any, ...]]
    messages: list[tuple[Any, ...]]
    bytes: int
    updated: float


def rows(account: str, key: str, session: Session, messages: Sequence[SessionMessage], now: float) -> ImportRows:
    """Returns the rows of an imported session. A time after `now` becomes that time.

    Raises:
        InvalidRequest: The session has too many labels, or is too long for one transaction.
    """
    turns: list[tuple[Any, ...]] = []
    stored: list[tuple[Any, ...]] = []
    completed = size = 0
    for number, found in groupby(messages, key=lambda message: message.turn):
        turn = list(found)
        added = serialize([one.message for one in turn])
        more = list(_records(turn))
        turns.append((key, number, *_turn(turn), *added.size, _continues(turn), *more))
        stored += [(key, number, position, *row) for position, row in enumerate(added.rows)]
        completed += len(turn) if turn[0].state == "completed" else 0
        size += added.bytes + sum(len(record) for record in more if record)
    records.require_importable(len(stored), size)
    updated = min(now, float(session.updated))
    last = turns[-1][1] if turns else 0
    properties = (min(updated, float(session.created)), updated, last, completed, _origin(account, session))
    labels = records.merged_labels(None, dict(session.labels))
    row = (key, account, session.model, *properties, session.title or None, labels, folded(session.title) or None, size)
    return ImportRows(row, turns, stored, size, updated)


def _turn(turn: Sequence[SessionMessage]) -> tuple[Any, ...]:
    """Returns state, reason, created and asked. A turn that was in progress has no worker any more."""
    first = turn[0]
    reason = first.reason if first.HasField("reason") else None
    ended = _CRASHED if first.state == "in_progress" else (first.state, reason)
    return (*ended, float(first.created), _asked(turn))


def _asked(turn: Sequence[SessionMessage]) -> int:
    """Returns the number of the request's messages: those before the model's answer."""
    answered = next((place for place, one in enumerate(turn) if one.HasField("usage")), None)
    if answered is not None:
        return answered
    return len(turn) - (turn[-1].message.role == "assistant")


def _continues(turn: Sequence[SessionMessage]) -> bool:
    return history.starts_with_tool_result([one.message for one in turn])


def _records(turn: Sequence[SessionMessage]) -> Iterator[str | bytes | None]:
    """Yields metadata, usage and receipt."""
    metadata = next((dict(one.metadata) for one in turn if one.metadata), None)
    yield orjson.dumps(metadata).decode() if metadata else None
    for name in ("usage", "receipt"):
        yield next((getattr(one, name).SerializeToString() for one in turn if one.HasField(name)), None)


def _origin(account: str, session: Session) -> str | None:
    """Returns the origin as it is stored: a caller may have chosen an id that looks like a key."""
    if not session.HasField("forked_from"):
        return None
    return chosen_key(account, session.forked_from) if is_chosen(session.forked_from) else session.forked_from
