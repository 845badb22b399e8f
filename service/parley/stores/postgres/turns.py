"""Turns. No lock is held over a round trip: each statement is a transaction of its own, except for limited accounts."""

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeAlias

import asyncpg

from parley.core.errors import SessionBusy, SessionNotFound, SessionOfOtherModel, TurnLost
from parley.core.messages.roles import is_system
from parley.core.ports import Turn, TurnBegin, TurnEnd, Window
from parley.core.ports.statistics import StoreStatistics
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
from parley.stores.serialized import serialize
from parley.stores.window_cache import KnownTurn, Past, SeenSizes, WindowCache, by_turn
from parley.v1.message_pb2 import Message

_MAX_TRIES = 10
_FIRST_SIZES = 64
_GROWTH = 8
_UNLIMITED = 2**40

Leased: TypeAlias = asyncpg.Record | None
BatchWrite = Callable[[Connection, Sequence[Any], Now], Coroutine[Any, Any, list[Any]]]
Write = Callable[[Connection, Sequence[Addition], Now], Coroutine[Any, Any, list[Any]]]


class Turns:
    """Begins and ends the turns of one worker. Turns that begin or end at the same time share a statement."""

    def __init__(
        self, pool: Pool, clock: Callable[[], Now], statistics: StoreStatistics, *, distributed: bool = False
    ) -> None:
        """Writes over the pool's connections, at the times of the clock.

        Args:
            pool: The connections.
            clock: The clock.
            statistics: Records the batches.
            distributed: Whether the database has its sessions in several shards: each statement is for one of them.
        """
        self._pool = pool
        self._clock = clock
        self._distributed = distributed
        self._windows = WindowCache()
        self._statistics = statistics
        self._created: Batches[Addition, None] = self._batches(turn_writes.create, turn_writes.create_again)
        self._leased: Batches[Addition, asyncpg.Record | None] = self._batches(
            turn_writes.lease, turn_writes.lease_again
        )
        self._ended: Batches[Ending, bool] = self._batches(turn_writes.end, turn_writes.end_again)

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
        if (known := self._windows.find(begin)) and (turn := await self._begin_known(begin, known, lease_seconds)):
            return turn
        sizes = _first_sizes(begin.window)
        for _ in range(_MAX_TRIES):
            try:
                state = await self._pool.read(lambda db, sizes=sizes: self._read_state(db, begin, sizes))  # type: ignore[misc]
            except SessionNotFound:
                if not begin.may_create:
                    raise
                if await self._create_absent(begin, lease_seconds):
                    return Turn(begin.session_id, 1, 1, messages=list(begin.messages))
                continue  # another call has created it, or a deleted session with the id is being removed
            latest = SeenSizes(_sizes(state))
            new = _new(begin.messages, state)
            first = history.first_turn(latest, begin.window, continued=history.starts_with_tool_result(new))
            if latest.reached_end and len(latest.seen) == sizes:
                sizes *= _GROWTH
            elif turn := await self._begin_read(begin, new, state, latest, first, lease_seconds):
                return turn
        raise SessionBusy(begin.session_id)

    async def end(self, turn: Turn, end: TurnEnd) -> None:
        """Ends the turn in one statement.

        Appends the answer, ends the claim, releases the lease, settles the limits and notifies waiting calls.

        Raises:
            TurnLost: The turn or its claim is no longer held; nothing is written.
            StoreUnavailable: The server is unavailable; the end may or may not have been committed.
        """
        ending = Ending(turn, end, serialize(end.answer))
        if not await self._end(ending):
            raise TurnLost
        self._windows.end(turn, ending.answer, completed=end.state == "completed")

    async def _end(self, ending: Ending) -> bool:
        """Ends the turn; returns whether it was still held."""
        end = ending.end
        if self._distributed and (end.claim or end.settlement):
            return await self._pool.run(lambda db: turn_writes.end_distributed(db, ending, self._clock()))
        if end.claim is None:
            return await self._ended.submit(ending)

        async def work(db: Connection) -> bool:
            return (await turn_writes.end(db, [ending], self._clock()))[0]

        async def again(db: Connection) -> bool:
            return (await turn_writes.end_again(db, [ending], self._clock()))[0]

        return await self._pool.run(work, again)

    def forget(self, session_id: str) -> None:
        """Removes a deleted session from memory."""
        self._windows.discard(session_id)

    async def _read_state(self, db: Connection, begin: TurnBegin, sizes: int | None) -> asyncpg.Record:
        return await _read_state(db, begin, self._clock(), sizes, self._pool.lease_grace())

    async def _create(self, begin: TurnBegin, lease_seconds: float) -> Turn:
        addition = Addition(begin, begin.messages, serialize(begin.messages), lease_seconds)
        storage.require_session_space(begin.storage, 0, addition.size)
        await self._write(addition, self._created, turn_writes.create)
        return Turn(begin.session_id, 1, 1, messages=list(begin.messages))

    async def _create_absent(self, begin: TurnBegin, lease_seconds: float) -> bool:
        """Creates a session with an id that the caller has chosen; returns whether no other has it."""
        addition = Addition(begin, begin.messages, serialize(begin.messages), lease_seconds)
        storage.require_session_space(begin.storage, 0, addition.size)

        async def work(db: Connection) -> bool:
            async with account_space(db, begin.account, begin.storage, sessions=1, added=addition.size):
                return await turn_writes.create_absent(db, addition, self._clock())

        return await self._pool.run(work)

    async def _begin_known(self, begin: TurnBegin, known: KnownTurn, lease_seconds: float) -> Turn | None:
        """Leases a session without reading it; returns None if it must be read."""
        past, added = known.past, serialize(known.new)
        if not storage.fits_session(begin.storage, past.stored_bytes, added.bytes):
            return None
        addition = Addition(begin, known.new, added, lease_seconds, Version(past.updated, known.fence, None))
        if (leased := await self._write(addition, self._leased, turn_writes.lease)) is None:
            self._windows.discard(begin.session_id)
            return None
        turn = _turn(addition, leased, past.history())
        self._windows.begin(begin, turn, past._replace(updated=leased["now"]), added)
        return turn

    async def _begin_read(  # noqa: PLR0913, PLR0917 - what was read
        self,
        begin: TurnBegin,
        new: Sequence[Message],
        state: asyncpg.Record,
        latest: SeenSizes,
        first: int | None,
        lease_seconds: float,
    ) -> Turn | None:
        """Leases a session that was read; returns None if it has changed meanwhile."""
        version = Version(state["updated"], state["lease_fence"], state["lease_expires"])
        pieces = records.pieces(latest.seen, first)
        addition = Addition(begin, new, serialize(new), lease_seconds, version, None if pieces else first)
        storage.require_session_space(begin.storage, state["session_bytes"], addition.size)
        if (leased := await self._write(addition, self._leased, turn_writes.lease)) is None:
            return None
        system = state["system_messages"]
        if pieces:
            turn = _turn(addition, leased, _parsed(system))
            await self._read_pieces(turn, pieces)
            return turn
        messages = by_turn(latest.seen, first, leased["history"] or ())
        past = Past(leased["now"], state["session_bytes"], system, latest.seen, latest.reached_end, messages)
        turn = _turn(addition, leased, past.history())
        self._windows.begin(begin, turn, past, addition.added)
        return turn

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

    def _batches(self, write: BatchWrite, again: BatchWrite) -> Any:
        """Returns batches that are written over connections of the pool; `again` repeats one after a disconnection."""
        return Batches(
            lambda batch: self._pool.run_in_task(
                lambda db: write(db, batch, self._clock()), lambda db: again(db, batch, self._clock())
            ),
            self._pool.spawn,
            self._statistics,
            shared=not self._distributed,
        )


def _turn(addition: Addition, leased: asyncpg.Record, past: list[Message]) -> Turn:
    return Turn(addition.session_id, leased["turn_count"], leased["lease_fence"], past, list(addition.messages))


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


async def _read_state(db: Connection, begin: TurnBegin, now: Now, sizes: int | None, grace: float) -> asyncpg.Record:
    """Reads the state of the session before a turn. Also an expired lease is held for `grace` seconds.

    Raises:
        SessionNotFound: The account has no such session.
        SessionOfOtherModel: The session belongs to another model.
        SessionBusy: Another turn holds the lease.
    """
    compared = len(begin.messages) if not begin.append and resent_history.may_repeat(begin.messages) else 0
    max_bytes, max_messages = begin.window.load_bytes or _UNLIMITED, begin.window.load_messages or _UNLIMITED
    values = (begin.session_id, begin.account, now, compared, sizes, max_bytes, max_messages + 1)
    state = await db.fetchrow(statements.STATE, *values)
    if state is None:
        raise SessionNotFound(begin.session_id)
    if state["model"] != begin.model:
        raise SessionOfOtherModel(begin.session_id, state["model"])
    if state["lease_expires"] is not None and (remaining := max(state["lease_remaining"], grace)) > 0:
        raise SessionBusy(begin.session_id, remaining)
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


def _sizes(state: asyncpg.Record) -> list[TurnSize]:
    """Returns the sizes of the latest turns, newest first."""
    columns = [state[name] or () for name in ("numbers", "messages", "tokens", "continues", "bytes")]
    return list(map(TurnSize._make, zip(*columns, strict=True)))
