"""Conversion between messages and rows, shared by the databases."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from parley.core.errors import InvalidRequest
from parley.core.ports import TurnEnd
from parley.core.session_ids import public_id
from parley.core.sessions.history import TurnSize
from parley.core.sessions.labels import MAX_LABELS
from parley.v1.message_pb2 import Message, Usage
from parley.v1.receipt_pb2 import Receipt
from parley.v1.sessions_pb2 import Session, SessionMessage

PIECE_BYTES = 512 * 1024
"""The bytes of a history that are read and parsed at once; other calls run between two pieces."""
PIECE_MESSAGES = 500
"""The messages of a history that are read and parsed at once."""
FORK_MESSAGES = 20_000
"""The maximum number of messages that a fork copies."""
FORK_BYTES = 64 << 20
"""The maximum bytes that a fork copies."""


def session(row: Iterable[Any]) -> Session:
    """Converts a row of id, model, created, updated, turn_count, forked_from, title, labels."""
    identifier, model, created, updated, turn_count, forked_from, title, labels = row
    return Session(
        id=public_id(identifier),
        object="chat.session",
        model=model,
        created=int(created),
        updated=int(updated),
        turn_count=turn_count,
        forked_from=None if forked_from is None else public_id(forked_from),
        title=title,
        labels=orjson.loads(labels) if labels else None,
    )


def session_message(row: Iterable[Any]) -> SessionMessage:
    """Converts a row of message, turn, position, state, reason, created, usage, metadata, receipt."""
    serialized, turn, _, state, reason, created, usage, metadata, receipt = row
    return SessionMessage(
        message=Message.FromString(serialized),
        turn=turn,
        state=state,
        reason=reason,
        created=int(created),
        usage=None if usage is None else Usage.FromString(usage),
        metadata=orjson.loads(metadata) if metadata else None,
        receipt=None if receipt is None else Receipt.FromString(receipt),
    )


def usage_and_receipt(end: TurnEnd) -> tuple[bytes | None, bytes | None]:
    """Returns the serialized usage and receipt of a turn."""
    usage, receipt = end.usage, end.receipt
    return (
        None if usage is None else usage.SerializeToString(),
        None if receipt is None else receipt.SerializeToString(),
    )


def pieces(sizes: Sequence[TurnSize], first: int | None) -> list[tuple[int, int]]:
    """Splits the turns from `first` on into ranges that are read one after another, oldest first.

    Args:
        sizes: The sizes of the session's completed turns, newest first.
        first: The number of the oldest turn to read; None for none.

    Returns:
        The first and last turn number of each range; empty if the history is small enough to be read at once.
    """
    turns = [turn for turn in reversed(sizes) if first is not None and turn.number >= first]
    if sum(turn.bytes for turn in turns) <= PIECE_BYTES and sum(turn.messages for turn in turns) <= PIECE_MESSAGES:
        return []
    found: list[tuple[int, int]] = []
    size = messages = 0
    for turn in turns:
        size, messages = size + turn.bytes, messages + turn.messages
        if found and size <= PIECE_BYTES and messages <= PIECE_MESSAGES:
            found[-1] = (found[-1][0], turn.number)
        else:
            found.append((turn.number, turn.number))
            size, messages = turn.bytes, turn.messages
    return found


def wanted_labels(labels: Mapping[str, str | None]) -> str | None:
    """Returns the labels of a filter as JSON; None without labels."""
    return orjson.dumps(dict(labels)).decode() if labels else None


def merged_labels(stored: str | None, changed: Mapping[str, str | None]) -> str | None:
    """Returns the stored labels with changes. Raises InvalidRequest if they are too many."""
    merged = {**(orjson.loads(stored) if stored else {}), **changed}
    labels = {name: value for name, value in merged.items() if value is not None}
    if len(labels) > MAX_LABELS:
        raise InvalidRequest(f"A session may have at most {MAX_LABELS} labels, not {len(labels)}", param="labels")
    return orjson.dumps(labels).decode() if labels else None


def require_forkable(messages: int, size: int) -> None:
    """Raises InvalidRequest if a fork is so large that its transaction would delay other calls."""
    if messages <= FORK_MESSAGES and size <= FORK_BYTES:
        return
    message = (
        f"The session is too long to be forked whole: a fork copies up to {FORK_MESSAGES} messages and "
        f"{FORK_BYTES >> 20} MiB; name an earlier turn in `through_turn`"
    )
    raise InvalidRequest(message, param="through_turn")


def require_importable(messages: int, size: int) -> None:
    """Raises InvalidRequest if a session is so large that the transaction of its import would delay other calls."""
    if messages > FORK_MESSAGES or size > FORK_BYTES:
        message = f"A session to import may have up to {FORK_MESSAGES} messages and {FORK_BYTES >> 20} MiB"
        raise InvalidRequest(message, param="body")


def last_forked(source: Session, through_turn: int | None) -> int:
    """Returns the number of the last turn to copy. Raises InvalidRequest if the session has no such turn."""
    last = source.turn_count
    if through_turn is None:
        return last
    if not 1 <= through_turn <= last:
        message = f"`through_turn` must be the number of a turn that the session has; its last one is {last}"
        raise InvalidRequest(message, param="through_turn")
    return through_turn
