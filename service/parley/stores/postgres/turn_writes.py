"""The statements that begin and end turns, each for several turns at once."""

import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

import asyncpg
import orjson

from parley.core.ports import Settlement, Turn, TurnBegin, TurnEnd
from parley.core.sessions import history
from parley.stores import records
from parley.stores.postgres import turn_statements as statements
from parley.stores.postgres.claims import end_claim
from parley.stores.postgres.database import Connection
from parley.stores.postgres.limits import charge_columns, settle_with_turn
from parley.stores.postgres.rows import Now
from parley.stores.serialized import Serialized
from parley.v1.message_pb2 import Message

_Row: TypeAlias = tuple[Any, ...]
_Messages: TypeAlias = tuple[str, int, Serialized]
"""Messages of a turn: the session, the position of the first one, and the messages."""
_MAX_FENCE_STEP = 2**24  # so that the fences of 2**39 turns fit into a bigint


def _fence_step() -> int:
    return random.randint(1, _MAX_FENCE_STEP)  # noqa: S311 - no secret


class Version(NamedTuple):
    """What identifies a state of a session: the latest turn's time and fence, and the expiry of its lease."""

    updated: float
    fence: int
    expires: float | None


@dataclass(slots=True)
class Addition:
    """A turn to begin.

    Attributes:
        begin: What the caller requests.
        messages: The messages that are new to the session.
        added: The same, serialized.
        lease_seconds: The duration of the lease.
        version: The state of the session that the decisions about the turn are based on; None for a new session.
        first: The number of the oldest turn whose messages are read; None for none.
        fence_step: The difference between the session's fence and that of the new lease. It is random, so that after a
            lease with an unknown outcome the fence tells it from the lease of another call.
        session_id: The id of the session.
        size: The bytes of the messages.
    """

    begin: TurnBegin
    messages: Sequence[Message]
    added: Serialized
    lease_seconds: float
    version: Version | None = None
    first: int | None = None
    fence_step: int = field(default_factory=lambda: _fence_step())  # noqa: PLW0108 - tests replace the function

    session_id: str = field(init=False)
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.session_id, self.size = self.begin.session_id, self.added.bytes

    @property
    def fence(self) -> int:
        """The fence of the lease."""
        return self.version.fence + self.fence_step if self.version else 1


@dataclass(slots=True)
class Ending:
    """A turn to end.

    Attributes:
        turn: The turn.
        end: Its end.
        answer: The serialized answer.
        session_id: The id of the session.
        size: The bytes of the answer.
    """

    turn: Turn
    end: TurnEnd
    answer: Serialized
    session_id: str = field(init=False)
    size: int = field(init=False)

    def __post_init__(self) -> None:
        self.session_id, self.size = self.turn.session_id, self.answer.bytes


async def create(db: Connection, additions: Sequence[Addition], now: Now) -> list[None]:
    """Creates sessions, each with its first turn, whose number and fence are 1."""
    rows = [(*_turn_row(one), one.begin.model) for one in additions]
    alone, values = _parameters(rows, [(one.session_id, 0, one.added) for one in additions])
    await db.execute(statements.CREATE_ONE if alone else statements.CREATE, now, *values)
    return [None] * len(additions)


async def create_again(db: Connection, additions: Sequence[Addition], now: Now) -> list[None]:
    """Does the same after a `create` with an unknown outcome. The ids are new: all of the sessions exist, or none."""
    with suppress(asyncpg.UniqueViolationError):
        await create(db, additions, now)
    return [None] * len(additions)


async def create_absent(db: Connection, addition: Addition, now: Now) -> bool:
    """Creates a session with its first turn, unless its id is in use; returns whether it did."""
    rows = [(*_turn_row(addition), addition.begin.model)]
    values = (*_transposed(rows), *_message_columns([(addition.session_id, 0, addition.added)]))
    return bool(await db.fetch(statements.CREATE_ABSENT, now, *values))


async def lease(db: Connection, additions: Sequence[Addition], now: Now) -> list[asyncpg.Record | None]:
    """Leases sessions and adds a turn to each; the result is None where the session has another version."""
    rows = [(*_turn_row(one), *(one.version or ()), one.fence, one.first) for one in additions]
    alone, values = _parameters(rows, [(one.session_id, 0, one.added) for one in additions])
    found = await db.fetch(statements.LEASE_ONE if alone else statements.LEASE, now, *values)
    leased = {row["id"]: row for row in found}
    return [leased.get(addition.session_id) for addition in additions]


async def lease_again(db: Connection, additions: Sequence[Addition], now: Now) -> list[asyncpg.Record | None]:
    """Does the same after a `lease` with an unknown outcome, which may have leased the sessions."""
    leased = await lease(db, additions, now)
    return [row or await _leased(db, one) for one, row in zip(additions, leased, strict=True)]


async def _leased(db: Connection, addition: Addition) -> asyncpg.Record | None:
    """Returns the result of an earlier `lease`, or None if the session is not leased to this turn."""
    begin = addition.begin
    return await db.fetchrow(statements.LEASED, begin.session_id, begin.account, addition.fence, addition.first)


async def end(db: Connection, endings: Sequence[Ending], now: Now) -> list[bool]:
    """Ends turns, appends the answers, releases the leases, settles the limits and notifies waiting calls.

    Args:
        db: The connection.
        endings: The ends, sorted by session; one that ends a claim must be the only one.
        now: The current time.

    Returns:
        For each turn, whether it still held its lease and its claim; otherwise nothing of it is written.
    """
    charges, ranges = _charges([ending.end.settlement for ending in endings])
    rows = [(*_end_row(ending), *charged) for ending, charged in zip(endings, ranges, strict=True)]
    answers = [(one.session_id, len(one.turn.messages), one.answer) for one in endings]
    if (claim := endings[0].end.claim) is None:
        alone, values = _parameters(rows, answers)
        found = await db.fetch(statements.END_ONE if alone else statements.END, now, *values, *charges)
    else:
        values = (*_transposed(rows), *_message_columns(answers), *charges)
        reply = endings[0].end.reply if endings[0].end.state == "completed" else None
        key = (claim.account, claim.method, claim.key, claim.fence, reply)
        found = await db.fetch(statements.END_WITH_CLAIM, now, *values, *key)
    ended = {row["id"] for row in found}
    return [ending.session_id in ended for ending in endings]


async def end_again(db: Connection, endings: Sequence[Ending], now: Now) -> list[bool]:
    """Does the same after an `end` with an unknown outcome, which may have ended the turns."""
    ended = await end(db, endings, now)
    return [one or await _is_ended(db, ending) for one, ending in zip(ended, endings, strict=True)]


async def _is_ended(db: Connection, ending: Ending) -> bool:
    """Returns whether the turn is completed with this answer."""
    answer = [row[0] for row in ending.answer.rows]
    if ending.end.state != "completed" or not answer:
        return False
    turn = ending.turn
    found = await db.fetch(statements.ANSWER, turn.session_id, turn.number, len(turn.messages), ending.end.state)
    return [row["message"] for row in found] == answer


async def end_distributed(db: Connection, ending: Ending, now: Now) -> bool:
    """Ends a turn in one transaction with a statement for each shard: that of the session, and those of the account.

    Args:
        db: The connection.
        ending: The end.
        now: The current time.

    Returns:
        Whether the turn still held its lease; otherwise nothing is written.

    Raises:
        TurnLost: The claim is no longer held.
    """
    claim, settlement = ending.end.claim, ending.end.settlement
    alone = replace(ending, end=replace(ending.end, claim=None, settlement=None))
    async with db.transaction():
        (ended,) = await end(db, [alone], now)
        if ended and claim is not None:
            reply = ending.end.reply if ending.end.state == "completed" else None
            await end_claim(db, claim, reply, now, ending.session_id)
        if ended and settlement is not None:
            await settle_with_turn(db, settlement, now)
    return ended


def _parameters(rows: Sequence[_Row], messages: Sequence[_Messages]) -> tuple[bool, tuple[Any, ...]]:
    """Returns whether there is one turn with one message, and the parameters: then values, otherwise columns."""
    columns = _message_columns(messages)
    if len(rows) == len(columns[0]) == 1:
        return True, (*rows[0], *[column[0] for column in columns])
    return False, (*_transposed(rows), *columns)


def _turn_row(addition: Addition) -> tuple[Any, ...]:
    begin, messages = addition.begin, addition.messages
    metadata = orjson.dumps(dict(begin.metadata)).decode() if begin.metadata else None
    return (
        begin.session_id,
        begin.account,
        addition.lease_seconds,
        len(messages),
        *addition.added.size,
        history.starts_with_tool_result(messages),
        metadata,
        addition.size,
    )


def _end_row(ending: Ending) -> tuple[Any, ...]:
    turn, end = ending.turn, ending.end
    return (
        turn.session_id,
        turn.fence,
        turn.number,
        len(turn.messages) + len(end.answer) if end.state == "completed" else 0,
        end.state,
        end.reason,
        *ending.answer.size,
        *records.usage_and_receipt(end),
        ending.size,
    )


def _message_columns(turns: Sequence[_Messages]) -> tuple[list[Any], ...]:
    rows = [
        (session_id, position, *row)
        for session_id, start, messages in turns
        for position, row in enumerate(messages.rows, start)
    ]
    return _transposed(rows) if rows else ([], [], [], [])


def _charges(settlements: Sequence[Settlement | None]) -> tuple[tuple[list[Any] | None, ...], list[_Row]]:
    """Returns the columns of all charges, and of each turn the id of its running call and the range of its charges.

    Charges are sorted by account and key, the order in which `parley.reserve` locks limits.
    """
    ranges: list[_Row] = [(None, None, None)] * len(settlements)
    if not any(settlements):
        return (None,) * 5, ranges
    columns: tuple[list[Any], ...] = ([], [], [], [], [])
    found = [
        (sorted({charge.subject for charge in one.charges}), place, one) for place, one in enumerate(settlements) if one
    ]
    for _, place, settlement in sorted(found, key=itemgetter(0)):
        low = len(columns[0]) + 1
        for column, values in zip(columns, charge_columns(settlement.charges), strict=True):
            column.extend(values)
        ranges[place] = (settlement.call_id, low, len(columns[0]))
    return columns, ranges


def _transposed(rows: Sequence[tuple[Any, ...]]) -> tuple[list[Any], ...]:
    return tuple(map(list, zip(*rows, strict=True)))
