"""Turns in SQL.

Each statement is a transaction of its own: no lock is held over a round trip.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import asyncpg
import orjson

from parley.core.errors import SessionBusy, SessionNotFound, SessionOfOtherModel, TurnLost
from parley.core.messages.roles import is_system
from parley.core.ports import Claim, Turn, TurnBegin, TurnEnd, Window
from parley.core.sessions import history, resent_history
from parley.core.sessions.history import TurnSize
from parley.stores import records
from parley.stores.postgres.database import Connection
from parley.stores.postgres.limits import SETTLE, settle_columns
from parley.stores.postgres.rows import Now, columns, now
from parley.v1.message_pb2 import Message

CHANNEL = "parley_released"
_MAX_TRIES = 10
_FIRST_SIZES = 64
_GROWTH = 8
_MOST = 2**40
_NO_TURN = 2**31 - 1  # turn numbers end long before this one

_ADD = """
turn AS (
  INSERT INTO parley.turns
    (session_id, number, state, created, asked, messages, tokens, bytes, continues, metadata, reserved)
  SELECT $1, turn_count, 'in_progress', now, $5, $6, $7, $8, $9, $10, $11 FROM leased
), added AS (
  INSERT INTO parley.messages (session_id, turn, position, message, system)
  SELECT $1, turn_count, place - 1, message, system
  FROM leased, unnest($12::bytea[], $13::boolean[]) WITH ORDINALITY AS sent (message, system, place)
)
"""
_CREATE = f"""
WITH clock AS (SELECT {now(3)} AS now), leased AS (
  INSERT INTO parley.sessions (id, account, model, created, updated, turn_count, lease_fence, lease_expires)
  SELECT $1, $2, $14, now, now, 1, 1, now + $4 FROM clock
  RETURNING turn_count, lease_fence, updated AS now
), {_ADD}
SELECT turn_count, lease_fence FROM leased
"""
# What a session was when it was looked at, it still is: with another fence or lease nothing is written. So what was
# decided from the look holds.
_LEASE = f"""
WITH clock AS (SELECT {now(3)} AS now), leased AS (
  UPDATE parley.sessions
  SET updated = now, turn_count = turn_count + 1, lease_fence = lease_fence + 1, lease_expires = now + $4
  FROM clock
  WHERE id = $1 AND account = $2 AND created = $14 AND lease_fence = $15 AND lease_expires IS NOT DISTINCT FROM $16
  AND (lease_expires IS NULL OR lease_expires <= now)
  RETURNING turn_count, lease_fence, now
), crashed AS (
  UPDATE parley.turns SET state = 'incomplete', reason = 'crashed' FROM leased
  WHERE session_id = $1 AND number = turn_count - 1 AND state = 'in_progress'
), {_ADD}
SELECT turn_count, lease_fence, ARRAY(
  SELECT message FROM parley.messages JOIN parley.turns USING (session_id)
  WHERE session_id = $1 AND number = turn AND turn >= $17 AND number >= $17 AND state = 'completed' AND NOT system
  ORDER BY turn, position
) AS said
FROM leased
"""
_HISTORY = """
SELECT message FROM parley.messages JOIN parley.turns USING (session_id)
WHERE session_id = $1 AND number = turn AND turn BETWEEN $2 AND $3 AND number BETWEEN $2 AND $3
AND state = 'completed' AND NOT system
ORDER BY turn, position
"""


def _bounded(messages: str, order: str) -> str:
    """Returns SQL for an array of messages, up to the one with which they have more than $6 bytes."""
    return f"""ARRAY(
    SELECT message FROM (
      SELECT message, turn, position, octet_length(message) AS size,
        sum(octet_length(message)) OVER (ORDER BY {order}) AS total
      FROM ({messages}) AS found
    ) AS sized WHERE total - size <= $6::bigint ORDER BY {order}
  )"""


_OLDEST, _NEWEST = "turn, position", "turn DESC, position DESC"
# No join: one that begins with the turns would read all of them.
_SYSTEM = """
SELECT message, turn, position FROM parley.messages
WHERE session_id = $1 AND system
AND (SELECT state FROM parley.turns WHERE session_id = $1 AND number = turn) = 'completed'
ORDER BY turn, position LIMIT $7
"""
_COMPLETED = """
SELECT message, turn, position FROM parley.messages JOIN parley.turns USING (session_id)
WHERE session_id = $1 AND number = turn AND state = 'completed'
"""
_LOOK = f"""
SELECT model, created, lease_fence, lease_expires, coalesce(lease_expires > {now(3)}, false) AS leased, standing,
  -- What is compared with a request of $4 messages: all, where it may repeat all, else as many from either end.
  CASE WHEN $4 > 0 AND completed_messages > 0 AND completed_messages - cardinality(standing) <= $4
    THEN {_bounded(f"{_COMPLETED} ORDER BY {_OLDEST}", _OLDEST)} END AS stored,
  CASE WHEN $4 > 0 AND completed_messages - cardinality(standing) > $4
    THEN {_bounded(f"{_COMPLETED} AND NOT system ORDER BY {_OLDEST} LIMIT $4", _OLDEST)} END AS first,
  CASE WHEN $4 > 0 AND completed_messages - cardinality(standing) > $4
    THEN {_bounded(f"{_COMPLETED} AND NOT system ORDER BY {_NEWEST} LIMIT $4", _NEWEST)} END AS latest,
  sizes.*
FROM parley.sessions, LATERAL (
  SELECT {_bounded(_SYSTEM, _OLDEST)} AS standing OFFSET 0
) AS said_by_system, LATERAL (
  SELECT array_agg(number) AS numbers, array_agg(messages) AS messages, array_agg(tokens) AS tokens,
    array_agg(continues) AS continues, array_agg(bytes) AS bytes
  FROM (
    SELECT number, messages, tokens, continues, bytes FROM parley.turns
    WHERE session_id = $1 AND state = 'completed' ORDER BY number DESC LIMIT $5
  ) AS latest
) AS sizes
WHERE id = $1 AND account = $2 AND deleted IS NULL
"""
_END = f"""
WITH clock AS (SELECT {now(1)} AS now), held AS MATERIALIZED (
  SELECT FROM parley.claims
  WHERE account = $2 AND method = $3 AND key = $4 AND fence = $5 AND lease_expires IS NOT NULL FOR UPDATE
), released AS (
  UPDATE parley.sessions SET lease_expires = NULL, completed_messages = completed_messages + $8
  WHERE id = $6 AND lease_fence = $7 AND lease_expires IS NOT NULL AND ($5::bigint IS NULL OR EXISTS (SELECT FROM held))
  RETURNING id, awaited = lease_fence AS awaited
), ended AS (
  UPDATE parley.turns
  SET state = $9, reason = $10, messages = messages + $11, tokens = tokens + $12, bytes = bytes + $13, usage = $14,
    receipt = $15, reserved = NULL
  FROM released WHERE session_id = released.id AND number = $16
  RETURNING asked
), added AS (
  INSERT INTO parley.messages (session_id, turn, position, message, system)
  SELECT $6, $16, asked + place - 1, message, system
  FROM ended, unnest($17::bytea[], $18::boolean[]) WITH ORDINALITY AS answer (message, system, place)
), kept AS (
  UPDATE parley.claims SET lease_expires = NULL, reply = $19, session_id = $6, updated = clock.now
  FROM clock, released
  WHERE account = $2 AND method = $3 AND key = $4 AND fence = $5 AND $19::bytea IS NOT NULL
), freed AS (
  DELETE FROM parley.claims USING released
  WHERE account = $2 AND method = $3 AND key = $4 AND fence = $5 AND $19::bytea IS NULL
), settled AS ({SETTLE.format(rows="clock, released", subjects="$20", kinds="$21", sizes="$22", amounts="$23")})
SELECT CASE WHEN awaited THEN pg_notify('{CHANNEL}', id) END FROM released
"""
_RENEW = f"""
UPDATE parley.sessions SET lease_expires = {now(1)} + $2
FROM unnest($3::text[], $4::bigint[]) AS held (session_id, fence)
WHERE id = held.session_id AND lease_fence = held.fence AND lease_expires IS NOT NULL
"""


async def begin_turn(db: Connection, begin: TurnBegin, now: Now, lease_seconds: float) -> Turn:
    """Leases the session and adds the turn, in one round trip where the session is new, else in two.

    Raises SessionNotFound, SessionOfOtherModel, SessionBusy, InvalidRequest.
    """
    if begin.new:
        turn = Turn(begin.session_id, 0, 0, messages=list(begin.messages))
        await _lease(db, _CREATE, begin, turn, now, lease_seconds, begin.model)
        return turn
    sizes = _first_sizes(begin.window)
    for _ in range(_MAX_TRIES):
        past = await _read_state(db, begin, now, sizes)
        turn = Turn(begin.session_id, 0, 0, past["standing"], _new(begin.messages, past))
        latest = _Sizes(past, sizes)
        first = history.first_turn(latest, begin.window, continued=history.starts_with_tool_result(turn.messages))
        if latest.ran_out:
            sizes = (sizes or 1) * _GROWTH
            continue
        version = (past["created"], past["lease_fence"], past["lease_expires"])
        pieces = records.pieces(latest.seen, first)
        from_turn = _NO_TURN if pieces or first is None else first
        if await _lease(db, _LEASE, begin, turn, now, lease_seconds, *version, from_turn):
            await _read_pieces(db, turn, pieces)
            return turn
    raise SessionBusy(begin.session_id)


async def _read_pieces(db: Connection, turn: Turn, pieces: Sequence[tuple[int, int]]) -> None:
    """Reads a long history. Nobody else changes it while the turn has its lease."""
    for first, last in pieces:
        turn.history += _parsed([row["message"] for row in await db.fetch(_HISTORY, turn.session_id, first, last)])


def _first_sizes(window: Window) -> int | None:
    """Returns how many turns to look at first: a window that trims rarely holds more."""
    if window == Window():
        return None
    return _FIRST_SIZES if window.max_messages or window.max_tokens else _GROWTH * _FIRST_SIZES


async def end_turn(db: Connection, turn: Turn, end: TurnEnd, now: Now) -> None:
    """Appends the answer, ends the turn, its claim and its lease, settles the limits, tells who waits; at once.

    Raises TurnLost.
    """
    completed = end.state == "completed"
    ended = await db.fetch(
        _END,
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
        *settle_columns(end.charges),
    )
    if not ended:
        raise TurnLost


async def renew_turns(db: Connection, turns: Sequence[Turn], now: Now, lease_seconds: float) -> None:
    """Extends those leases that are still these turns'."""
    held = sorted((turn.session_id, turn.fence) for turn in turns)
    await db.execute(_RENEW, now, lease_seconds, [place for place, _ in held], [fence for _, fence in held])


async def _read_state(db: Connection, begin: TurnBegin, now: Now, sizes: int | None) -> asyncpg.Record:
    """Reads what decides about a turn. Raises SessionNotFound, SessionOfOtherModel, SessionBusy."""
    compared = len(begin.messages) if resent_history.may_repeat(begin.messages) else 0
    bytes_most, messages_most = begin.window.load_bytes or _MOST, begin.window.load_messages or _MOST
    values = (begin.session_id, begin.account, now, compared, sizes, bytes_most, messages_most + 1)
    past = await db.fetchrow(_LOOK, *values)
    if past is None:
        raise SessionNotFound(begin.session_id)
    if past["model"] != begin.model:
        raise SessionOfOtherModel(begin.session_id, past["model"])
    if past["leased"]:
        raise SessionBusy(begin.session_id)
    for read in ("standing", "stored", "first", "latest"):
        if past[read]:
            history.require_loadable(begin.window, len(past[read]), sum(map(len, past[read])))
    return past


def _new(sent: Sequence[Message], past: asyncpg.Record) -> list[Message]:
    """Returns what the session does not have yet. Raises InvalidRequest."""
    new = sent
    if past["stored"] is not None:
        new = resent_history.new_messages(_parsed(past["stored"]), sent)
    elif past["first"] is not None:
        first, latest = _parsed(past["first"]), _parsed(past["latest"][::-1])
        new = resent_history.new_to(
            resent_history.StoredHistory(first, latest, _parsed(past["standing"]), is_complete=False), sent
        )
    if len(new) < len(sent):
        return list(new)
    if not sent or not is_system(sent[0]):
        return list(sent)
    return list(resent_history.without_known_system(_parsed(past["standing"]), sent))


def _parsed(messages: Sequence[bytes]) -> list[Message]:
    return [Message.FromString(message) for message in messages]


async def _lease(  # noqa: PLR0913, PLR0917 - the statement's parameters
    db: Connection, sql: str, begin: TurnBegin, turn: Turn, now: Now, lease_seconds: float, *more: object
) -> bool:
    """Writes the turn and fills in its number, fence and history; False where the session is another by now."""
    metadata = orjson.dumps(dict(begin.metadata)).decode() if begin.metadata else None
    shape = (len(turn.messages), *records.size(turn.messages), history.starts_with_tool_result(turn.messages), metadata)
    reserved = records.pack_charges(begin.reserved)
    values = (begin.session_id, begin.account, now, lease_seconds, *shape, reserved, *columns(turn.messages), *more)
    leased = await db.fetchrow(sql, *values)
    if leased is None:
        return False
    turn.number, turn.fence = leased["turn_count"], leased["lease_fence"]
    past = [*turn.history, *leased.get("said", ())]
    turn.history = [Message.FromString(message) for message in past]
    return True


class _Sizes:
    """The sizes of the latest turns, the newest first. `ran_out` tells whether more would have been read."""

    def __init__(self, past: asyncpg.Record, limit: int | None) -> None:
        self.ran_out = False
        self.seen: list[TurnSize] = []
        self._limit = limit
        self._columns = [past[name] or () for name in ("numbers", "messages", "tokens", "continues", "bytes")]

    def __iter__(self) -> Iterator[TurnSize]:
        for row in zip(*self._columns, strict=True):
            self.seen.append(TurnSize(*row))
            yield self.seen[-1]
        self.ran_out = len(self._columns[0]) == self._limit


def _key(claim: Claim | None) -> tuple[Any, ...]:
    return (None,) * 4 if claim is None else (claim.account, claim.method, claim.key, claim.fence)
