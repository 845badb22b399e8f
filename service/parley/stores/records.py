"""What the rows of sessions and messages stand for, whichever database they are from."""

from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from parley.core.errors import InvalidRequest
from parley.core.messages.roles import is_system
from parley.core.ports import Charge, TurnEnd
from parley.core.sessions.history import TurnSize
from parley.core.usage.tokens import message_tokens
from parley.v1.message_pb2 import Message, Usage
from parley.v1.receipt_pb2 import Receipt
from parley.v1.sessions_pb2 import Session, SessionMessage

PIECE_BYTES = 512 * 1024
"""How much of a history is read and parsed at a time: the event loop and other calls go on in between."""
PIECE_MESSAGES = 500
FORK_MESSAGES = 20_000
FORK_BYTES = 64 << 20


def session(row: Iterable[Any]) -> Session:
    """Reads id, model, created, updated, turn_count, forked_from."""
    identifier, model, created, updated, turn_count, forked_from = row
    return Session(
        id=identifier,
        object="chat.session",
        model=model,
        created=int(created),
        updated=int(updated),
        turn_count=turn_count,
        forked_from=forked_from,
    )


def session_message(row: Iterable[Any]) -> SessionMessage:
    """Reads message, turn, position, state, reason, created, usage, metadata, receipt."""
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


def spent(end: TurnEnd) -> tuple[bytes | None, bytes | None]:
    """Returns a turn's usage and receipt as they are kept."""
    usage, receipt = end.usage, end.receipt
    return (
        None if usage is None else usage.SerializeToString(),
        None if receipt is None else receipt.SerializeToString(),
    )


def size(messages: Iterable[Message]) -> tuple[int, int, int]:
    """Returns the number, the estimated tokens and the serialized bytes of the messages that a window counts."""
    counted = [message for message in messages if not is_system(message)]
    return len(counted), sum(map(message_tokens, counted)), sum(message.ByteSize() for message in counted)


def pieces(sizes: Sequence[TurnSize], first: int | None) -> list[tuple[int, int]]:
    """Divides the turns from `first` on into ranges of turn numbers that are read one after the other, oldest first.

    Args:
        sizes: The sizes of the session's completed turns, the newest first.
        first: The number of the oldest turn to read; None for none.

    Returns:
        Empty where all of it is small enough to be read at once.
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


def pack_charges(charges: Sequence[Charge]) -> str | None:
    """Serializes what a turn has reserved; None for nothing."""
    if not charges:
        return None
    return orjson.dumps([(one.subject, one.kind, one.per_minute, one.amount) for one in charges]).decode()


def returned_charges(reserved: str) -> list[Charge]:
    """Reads `pack_charges` back, as charges that give back what was reserved."""
    return [Charge(subject, kind, size, -amount) for subject, kind, size, amount in orjson.loads(reserved)]


def require_forkable(messages: int, size: int) -> None:
    """Raises InvalidRequest where a fork would copy so much in one transaction that other calls wait for it."""
    if messages <= FORK_MESSAGES and size <= FORK_BYTES:
        return
    message = (
        f"The session is too long to be forked whole: a fork copies up to {FORK_MESSAGES} messages and "
        f"{FORK_BYTES >> 20} MiB; name an earlier turn in `through_turn`"
    )
    raise InvalidRequest(message, param="through_turn")


def last_forked(source: Session, through_turn: int | None) -> int:
    """Returns the last turn that a fork takes over. Raises InvalidRequest where the session has no such turn."""
    last = source.turn_count
    if through_turn is None:
        return last
    if not 1 <= through_turn <= last:
        message = f"`through_turn` must be the number of a turn that the session has; its last one is {last}"
        raise InvalidRequest(message, param="through_turn")
    return through_turn
