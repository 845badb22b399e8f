"""Turns. Each statement is a transaction of its own, so that no lock is held over a round trip."""

from collections.abc import Iterator, Sequence
from typing import Any

import asyncpg
import orjson

from parley.core.errors import SessionBusy, SessionNotFound, SessionOfOtherModel, TurnLost
from parley.core.messages.roles import is_system
from parley.core.ports import Claim, Turn, TurnBegin, TurnEnd, Window
from parley.core.sessions import history, resent_history, storage
from parley.core.sessions.history import TurnSize
from parley.stores import records
from parley.stores.postgres import turn_statements as statements
from parley.stores.postgres.database import Connection
from parley.stores.postgres.limits import settlement_columns
from parley.stores.postgres.rows import Now, columns
from parley.stores.postgres.storage import account_space
from parley.v1.message_pb2 import Message

_MAX_TRIES = 10
_FIRST_SIZES = 64
_GROWTH = 8
_UNLIMITED = 2**40
_NO_TURN = 2**31 - 1  # above all turn numbers


async def begin_turn(db: Connection, begin: TurnBegin, now: Now, lease_seconds: float) -> Turn:
    """Leases the session and adds the turn, in one round trip for a new session, otherwise in two.

    Args:
        db: The connection.
        begin: The turn to begin.
        now: The current time.
        lease_seconds: The duration of the lease.

    Returns:
        The turn with its history.

    Raises:
        SessionNotFound: The account has no such session.
        SessionOfOtherModel: The session belongs to another model.
        SessionBusy: Another turn holds the lease.
        InvalidRequest: No message is new, the request contradicts the session, or the history is too long.
        StorageLimitExceeded: The new session or messages exceed a limit.
    """
    if begin.new:
        storage.require_session_space(begin.storage, 0, _size(begin.messages))
        turn = Turn(begin.session_id, 0, 0, messages=list(begin.messages))
        await _lease(db, statements.CREATE, begin, turn, now, lease_seconds, begin.model)
        return turn
    sizes = _first_sizes(begin.window)
    for _ in range(_MAX_TRIES):
        state = await _read_state(db, begin, now, sizes)
        turn = Turn(begin.session_id, 0, 0, state["system_messages"], _new(begin.messages, state))
        storage.require_session_space(begin.storage, state["session_bytes"], _size(turn.messages))
        latest = _Sizes(state, sizes)
        first = history.first_turn(latest, begin.window, continued=history.starts_with_tool_result(turn.messages))
        if latest.ran_out:
            sizes = (sizes or 1) * _GROWTH
            continue
        version = (state["created"], state["lease_fence"], state["lease_expires"])
        pieces = records.pieces(latest.seen, first)
        from_turn = _NO_TURN if pieces or first is None else first
        if await _lease(db, statements.LEASE, begin, turn, now, lease_seconds, *version, from_turn):
            await _read_pieces(db, turn, pieces)
            return turn
    raise SessionBusy(begin.session_id)


async def _read_pieces(db: Connection, turn: Turn, pieces: Sequence[tuple[int, int]]) -> None:
    """Reads a long history, which does not change while the turn holds the lease."""
    for first, last in pieces:
        turn.history += _parsed(
            [row["message"] for row in await db.fetch(statements.HISTORY, turn.session_id, first, last)]
        )


def _first_sizes(window: Window) -> int | None:
    """Returns how many turn sizes to read first, or None for all: a window that trims rarely includes more."""
    if window == Window():
        return None
    return _FIRST_SIZES if window.max_messages or window.max_tokens else _GROWTH * _FIRST_SIZES


async def end_turn(db: Connection, turn: Turn, end: TurnEnd, now: Now) -> None:
    """Ends the turn in one statement.

    Appends the answer, ends the claim, releases the lease, settles the limits and notifies waiting calls. Raises
    TurnLost.
    """
    completed = end.state == "completed"
    ended = await db.fetch(
        statements.END,
        now,
        *_key(end.claim),
        turn.session_id,
        turn.fence,
        len(turn.messages) + len(end.answer) if completed else 0,
        end.state,
        end.reason,
        *records.size(end.answer),
        *records.usage_and_receipt(end),
        turn.number,
        *columns(end.answer),
        end.reply if completed else None,
        _size(end.answer),
        *settlement_columns(end.settlement),
    )
    if not ended:
        raise TurnLost


async def renew_turns(db: Connection, turns: Sequence[Turn], now: Now, lease_seconds: float) -> None:
    """Extends the leases that the turns still hold."""
    held = sorted((turn.session_id, turn.fence) for turn in turns)
    await db.execute(
        statements.RENEW, now, lease_seconds, [session for session, _ in held], [fence for _, fence in held]
    )


async def _read_state(db: Connection, begin: TurnBegin, now: Now, sizes: int | None) -> asyncpg.Record:
    """Reads the state of the session before a turn. Raises SessionNotFound, SessionOfOtherModel, SessionBusy."""
    compared = len(begin.messages) if resent_history.may_repeat(begin.messages) else 0
    max_bytes, max_messages = begin.window.load_bytes or _UNLIMITED, begin.window.load_messages or _UNLIMITED
    values = (begin.session_id, begin.account, now, compared, sizes, max_bytes, max_messages + 1)
    state = await db.fetchrow(statements.STATE, *values)
    if state is None:
        raise SessionNotFound(begin.session_id)
    if state["model"] != begin.model:
        raise SessionOfOtherModel(begin.session_id, state["model"])
    if state["lease_remaining"] > 0:
        raise SessionBusy(begin.session_id, state["lease_remaining"])
    storage.require_session_space(begin.storage, state["session_bytes"], 0)
    for read in ("system_messages", "stored", "first", "latest"):
        if state[read]:
            history.require_loadable(begin.window, len(state[read]), sum(map(len, state[read])))
    return state


def _new(sent: Sequence[Message], state: asyncpg.Record) -> list[Message]:
    """Returns the messages that are new to the session. Raises InvalidRequest."""
    new = sent
    if state["stored"] is not None:
        new = resent_history.new_messages(_parsed(state["stored"]), sent)
    elif state["first"] is not None:
        first, latest = _parsed(state["first"]), _parsed(state["latest"][::-1])
        new = resent_history.new_to(
            resent_history.StoredHistory(first, latest, _parsed(state["system_messages"]), is_complete=False), sent
        )
    if len(new) < len(sent):
        return list(new)
    if not sent or not is_system(sent[0]):
        return list(sent)
    return list(resent_history.without_known_system(_parsed(state["system_messages"]), sent))


def _parsed(messages: Sequence[bytes]) -> list[Message]:
    return [Message.FromString(message) for message in messages]


async def _lease(  # noqa: PLR0913, PLR0917 - the statement's parameters
    db: Connection, sql: str, begin: TurnBegin, turn: Turn, now: Now, lease_seconds: float, *more: object
) -> bool:
    """Writes the turn and sets its number, fence and history; returns False if the session has changed."""
    metadata = orjson.dumps(dict(begin.metadata)).decode() if begin.metadata else None
    shape = (len(turn.messages), *records.size(turn.messages), history.starts_with_tool_result(turn.messages), metadata)
    size = _size(turn.messages)
    values = (begin.session_id, begin.account, now, lease_seconds, *shape, size, *columns(turn.messages), *more)
    async with account_space(db, begin.account, begin.storage, sessions=int(begin.new), added=size):
        leased = await db.fetchrow(sql, *values)
    if leased is None:
        return False
    turn.number, turn.fence = leased["turn_count"], leased["lease_fence"]
    serialized = [*turn.history, *leased.get("history", ())]
    turn.history = [Message.FromString(message) for message in serialized]
    return True


class _Sizes:
    """The sizes of the latest turns, newest first.

    Attributes:
        ran_out: Whether the iteration reached the end although the session may have more turns.
        seen: The sizes that were iterated over.
    """

    def __init__(self, state: asyncpg.Record, limit: int | None) -> None:
        self.ran_out = False
        self.seen: list[TurnSize] = []
        self._limit = limit
        self._columns = [state[name] or () for name in ("numbers", "messages", "tokens", "continues", "bytes")]

    def __iter__(self) -> Iterator[TurnSize]:
        for row in zip(*self._columns, strict=True):
            self.seen.append(TurnSize(*row))
            yield self.seen[-1]
        self.ran_out = len(self._columns[0]) == self._limit


def _size(messages: Sequence[Message]) -> int:
    return sum(message.ByteSize() for message in messages)


def _key(claim: Claim | None) -> tuple[Any, ...]:
    return (None,) * 4 if claim is None else (claim.account, claim.method, claim.key, claim.fence)
