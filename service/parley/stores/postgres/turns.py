"""Turns. No lock is held over a round trip: each statement is a transaction of its own, except for limited accounts."""

from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import asyncpg

from parley.core.errors import SessionBusy, SessionNotFound, SessionOfOtherModel, TurnLost
from parley.core.messages.roles import is_system
from parley.core.ports import Turn, TurnBegin, TurnEnd, Window
from parley.core.sessions import history, resent_history, storage
from parley.core.sessions.history import TurnSize
from parley.stores import records
from parley.stores.postgres import turn_statements as statements
from parley.stores.postgres import turn_writes
from parley.stores.postgres.batches import Batches
from parley.stores.postgres.database import Connection
from parley.stores.postgres.pool import Pool
from parley.stores.postgres.rows import Now
from parley.stores.postgres.storage import account_space
from parley.stores.postgres.turn_writes import Addition, Ending, Version
from parley.v1.message_pb2 import Message

_MAX_TRIES = 10
_FIRST_SIZES = 64
_GROWTH = 8
_UNLIMITED = 2**40

Write = Callable[[Connection, Sequence[Addition], Now], Coroutine[Any, Any, list[Any]]]


class Turns:
    """Begins and ends the turns of one worker. Turns that begin or end at the same time share a statement."""

    def __init__(self, pool: Pool, clock: Callable[[], Now]) -> None:
        """Writes over the pool's connections, at the times of the clock."""
        self._pool = pool
        self._clock = clock
        self._created: Batches[Addition, None] = Batches(self._run(turn_writes.create), pool.spawn)
        self._leased: Batches[Addition, asyncpg.Record | None] = Batches(self._run(turn_writes.lease), pool.spawn)
        self._ended: Batches[Ending, bool] = Batches(self._run(turn_writes.end), pool.spawn)

    async def begin(self, begin: TurnBegin, lease_seconds: float) -> Turn:
        """Leases the session and adds the turn, in one round trip for a new session, otherwise in two.

        Args:
            begin: The turn to begin.
            lease_seconds: The duration of the lease.

        Returns:
            The turn with its history.

        Raises:
            SessionNotFound: The account has no such session.
            SessionOfOtherModel: The session belongs to another model.
            SessionBusy: Another turn holds the lease.
            InvalidRequest: No message is new, the request contradicts the session, or the history is too long.
            StorageLimitExceeded: The new session or messages exceed a limit.
            StoreUnavailable: The server is unavailable.
        """
        if begin.new:
            return await self._create(begin, lease_seconds)
        sizes = _first_sizes(begin.window)
        for _ in range(_MAX_TRIES):
            state = await self._pool.read(lambda db, sizes=sizes: _read_state(db, begin, self._clock(), sizes))  # type: ignore[misc]
            turn = Turn(begin.session_id, 0, 0, _parsed(state["system_messages"]), _new(begin.messages, state))
            latest = _Sizes(state, sizes)
            first = history.first_turn(latest, begin.window, continued=history.starts_with_tool_result(turn.messages))
            if latest.ran_out:
                sizes = (sizes or 1) * _GROWTH
                continue
            version = Version(state["created"], state["lease_fence"], state["lease_expires"])
            pieces = records.pieces(latest.seen, first)
            addition = _addition(begin, turn.messages, lease_seconds, version, None if pieces else first)
            storage.require_session_space(begin.storage, state["session_bytes"], addition.size)
            if leased := await self._write(addition, self._leased, turn_writes.lease):
                turn.number, turn.fence = leased["turn_count"], leased["lease_fence"]
                turn.history += _parsed(leased["history"] or ())
                await self._read_pieces(turn, pieces)
                return turn
        raise SessionBusy(begin.session_id)

    async def end(self, turn: Turn, end: TurnEnd) -> None:
        """Ends the turn in one statement.

        Appends the answer, ends the claim, releases the lease, settles the limits and notifies waiting calls.

        Raises:
            TurnLost: The turn or its claim is no longer held; nothing is written.
            StoreUnavailable: The server is unavailable; the end may or may not have been committed.
        """
        ending = Ending(turn, end, [message.SerializeToString() for message in end.answer])
        if end.claim is None:
            ended = await self._ended.submit(ending)
        else:
            (ended,) = await self._pool.run(lambda db: turn_writes.end(db, [ending], self._clock()))
        if not ended:
            raise TurnLost

    async def _create(self, begin: TurnBegin, lease_seconds: float) -> Turn:
        addition = _addition(begin, list(begin.messages), lease_seconds)
        storage.require_session_space(begin.storage, 0, addition.size)
        await self._write(addition, self._created, turn_writes.create)
        return Turn(begin.session_id, 1, 1, messages=list(begin.messages))

    async def _write(self, addition: Addition, batches: Batches[Addition, Any], write: Write) -> Any:
        """Writes the turn with others; that of a limited account in a transaction of its own."""
        begin = addition.begin
        if not storage.limits_account(begin.storage):
            return await batches.submit(addition)

        async def work(db: Connection) -> Any:
            async with account_space(db, begin.account, begin.storage, sessions=int(begin.new), added=addition.size):
                return (await write(db, [addition], self._clock()))[0]

        return await self._pool.run(work)

    async def _read_pieces(self, turn: Turn, pieces: Sequence[tuple[int, int]]) -> None:
        """Reads a long history, which does not change while the turn holds the lease."""
        for piece in pieces:
            rows = await self._pool.read(lambda db, piece=piece: db.fetch(statements.HISTORY, turn.session_id, *piece))  # type: ignore[misc]
            turn.history += _parsed([row["message"] for row in rows])

    def _run(self, write: Callable[[Connection, Sequence[Any], Now], Coroutine[Any, Any, list[Any]]]) -> Any:
        """Returns a function that writes a batch over a connection of the pool."""
        return lambda batch: self._pool.run(lambda db: write(db, batch, self._clock()))


def _addition(
    begin: TurnBegin,
    messages: Sequence[Message],
    lease_seconds: float,
    version: Version | None = None,
    first: int | None = None,
) -> Addition:
    serialized = [message.SerializeToString() for message in messages]
    return Addition(begin, messages, serialized, lease_seconds, version, first)


def _first_sizes(window: Window) -> int | None:
    """Returns how many turn sizes to read first, or None for all: a window that trims rarely includes more."""
    if window == Window():
        return None
    return _FIRST_SIZES if window.max_messages or window.max_tokens else _GROWTH * _FIRST_SIZES


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
