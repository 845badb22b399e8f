"""The statements that begin and end turns, each for several turns at once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, NamedTuple

import asyncpg
import orjson

from parley.core.ports import Settlement, Turn, TurnBegin, TurnEnd
from parley.core.sessions import history
from parley.stores import records
from parley.stores.postgres import turn_statements as statements
from parley.stores.postgres.database import Connection
from parley.stores.postgres.limits import charge_columns
from parley.stores.postgres.rows import Now
from parley.stores.serialized import Serialized
from parley.v1.message_pb2 import Message


class Version(NamedTuple):
    """What identifies a state of a session, which every later turn changes."""

    created: float
    fence: int
    expires: float | None


@dataclass(frozen=True, slots=True)
class Addition:
    """A turn to begin.

    Attributes:
        begin: What the caller requests.
        messages: The messages that are new to the session.
        added: The same, serialized.
        lease_seconds: The duration of the lease.
        version: The state of the session that the decisions about the turn are based on; None for a new session.
        first: The number of the oldest turn whose messages are read; None for none.
    """

    begin: TurnBegin
    messages: Sequence[Message]
    added: Serialized
    lease_seconds: float
    version: Version | None = None
    first: int | None = None

    @property
    def session_id(self) -> str:
        """The id of the session."""
        return self.begin.session_id

    @property
    def size(self) -> int:
        """The bytes of the messages."""
        return self.added.bytes


@dataclass(frozen=True, slots=True)
class Ending:
    """A turn to end: the turn, its end, and the serialized answer."""

    turn: Turn
    end: TurnEnd
    answer: Serialized

    @property
    def session_id(self) -> str:
        """The id of the session."""
        return self.turn.session_id

    @property
    def size(self) -> int:
        """The bytes of the answer."""
        return self.answer.bytes


async def create(db: Connection, additions: Sequence[Addition], now: Now) -> list[float]:
    """Creates sessions, each with its first turn, whose number and fence are 1; returns the times of creation."""
    models = [addition.begin.model for addition in additions]
    rows = await db.fetch(statements.CREATE, now, *_turn_columns(additions), models)
    created = {row["id"]: row["created"] for row in rows}
    return [created[addition.session_id] for addition in additions]


async def lease(db: Connection, additions: Sequence[Addition], now: Now) -> list[asyncpg.Record | None]:
    """Leases sessions and adds a turn to each; the result is None where the session has another version."""
    versions = [list(column) for column in zip(*(addition.version for addition in additions), strict=True)]
    first = [addition.first for addition in additions]
    rows = await db.fetch(statements.LEASE, now, *_turn_columns(additions), *versions, first)
    leased = {row["id"]: row for row in rows}
    return [leased.get(addition.session_id) for addition in additions]


async def end(db: Connection, endings: Sequence[Ending], now: Now) -> list[bool]:
    """Ends turns, appends the answers, releases the leases, settles the limits and notifies waiting calls.

    Args:
        db: The connection.
        endings: The ends, sorted by session; one that ends a claim must be the only one.
        now: The current time.

    Returns:
        For each turn, whether it still held its lease and its claim; otherwise nothing of it is written.
    """
    ends = [_end_row(ending) for ending in endings]
    answers = ((one.session_id, len(one.turn.messages), one.answer) for one in endings)
    settlements = _settlement_columns([ending.end.settlement for ending in endings])
    values = (now, *_transposed(ends), *_message_columns(answers), *settlements)
    claim, reply = endings[0].end.claim, endings[0].end.reply
    if claim is None:
        rows = await db.fetch(statements.END, *values)
    else:
        kept = reply if endings[0].end.state == "completed" else None
        key = (claim.account, claim.method, claim.key, claim.fence, kept)
        rows = await db.fetch(statements.END_WITH_CLAIM, *values, *key)
    ended = {row["id"] for row in rows}
    return [ending.session_id in ended for ending in endings]


def _turn_columns(additions: Sequence[Addition]) -> tuple[list[Any], ...]:
    """Returns the columns of turns and of their messages."""
    messages = ((one.session_id, 0, one.added) for one in additions)
    return (*_transposed([_turn_row(addition) for addition in additions]), *_message_columns(messages))


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


def _message_columns(turns: Iterable[tuple[str, int, Serialized]]) -> tuple[list[Any], ...]:
    """Returns the columns of the messages of turns.

    Args:
        turns: Of each turn the session, the position of the first message, and the messages.
    """
    rows = [
        (session_id, position, *row)
        for session_id, start, messages in turns
        for position, row in enumerate(messages.rows, start)
    ]
    return _transposed(rows) if rows else ([], [], [], [])


def _settlement_columns(settlements: Sequence[Settlement | None]) -> tuple[list[Any], ...]:
    """Returns the columns of all charges, then of each turn the id of its running call and the range of its charges.

    Charges are sorted by account and key, the order in which `parley.reserve` locks limits.
    """
    columns: tuple[list[Any], ...] = ([], [], [], [], [])
    calls: list[str | None] = [None] * len(settlements)
    low: list[int | None] = [None] * len(settlements)
    high: list[int | None] = [None] * len(settlements)
    found = [
        (sorted({one.subject for one in settlement.charges}), place, settlement)
        for place, settlement in enumerate(settlements)
        if settlement
    ]
    for _, place, settlement in sorted(found, key=itemgetter(0)):
        low[place] = len(columns[0]) + 1
        for column, values in zip(columns, charge_columns(settlement.charges), strict=True):
            column.extend(values)
        calls[place], high[place] = settlement.call_id, len(columns[0])
    return (*columns, calls, low, high)


def _transposed(rows: Sequence[tuple[Any, ...]]) -> tuple[list[Any], ...]:
    return tuple(map(list, zip(*rows, strict=True)))
