"""The part of the store that begins and ends turns."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol, TypeVar

import apsw

from parley.core.offload import is_large, offload
from parley.core.ports import Claim, Turn, TurnBegin, TurnEnd
from parley.core.sessions import storage
from parley.stores.serialized import serialize
from parley.stores.sqlite import turns
from parley.stores.sqlite.claims import renew_claims
from parley.stores.sqlite.clock import FileClock, Times
from parley.stores.sqlite.deferred import DeferredBegin, DeferredBegins, EndedTurn, write_turns
from parley.stores.sqlite.releases import LeaseWaiters
from parley.stores.sqlite.turn_history import SerializedHistory, read_piece
from parley.stores.sqlite.turns import renew_turns
from parley.stores.sqlite.writer import Writer
from parley.v1.message_pb2 import Message

T = TypeVar("T")


class _Store(Protocol):
    _clock: FileClock
    _writer: Writer
    _deferred: DeferredBegins
    _lease_waiters: LeaseWaiters

    def _times(self, db: apsw.Connection, lease_seconds: float = 0.0) -> Times: ...
    async def _end_begun(self, turn: Turn, end: TurnEnd) -> None: ...
    def _write_ended(self, db: apsw.Connection, ended: Sequence[EndedTurn]) -> None: ...
    def _read(self, work: Callable[[apsw.Connection], T]) -> Awaitable[T]: ...


class TurnMethods:
    """Implements the turns of `parley.core.ports.SessionStore`, as a part of the store."""

    async def begin_turn(self: _Store, begin: TurnBegin, lease_seconds: float) -> Turn:
        """Leases the session and adds the turn. Raises SessionNotFound, SessionBusy, InvalidRequest."""
        sent = await offload(serialize, begin.messages)

        def job(db: apsw.Connection) -> tuple[Turn, SerializedHistory]:
            return turns.begin_turn(db, begin, sent, self._times(db, lease_seconds))

        turn, history = await self._writer.submit(job)
        turn.history = [Message.FromString(message) for message in history.read]
        for piece in history.pieces:
            read = await self._read(lambda db, piece=piece: read_piece(db, turn, piece))  # type: ignore[misc]
            turn.history += [Message.FromString(message) for message in read]
        return turn

    def defer_turn(self: _Store, begin: TurnBegin, lease_seconds: float) -> Turn | None:
        """Begins the first turn of a session; writes it later. Not while the file is unavailable."""
        if self._writer.is_failing or storage.limits_account(begin.storage) or is_large():
            return None
        sent = serialize(begin.messages)
        storage.require_session_space(begin.storage, 0, sent.bytes)
        return self._deferred.add(DeferredBegin(begin, sent, self._clock.wall(), lease_seconds))

    def end_turn(self: _Store, turn: Turn, end: TurnEnd) -> asyncio.Future[None]:
        """Starts to end the turn, its lease and its claim. Raises TurnLost."""
        deferred = self._deferred.take(turn.session_id)
        if deferred is None:
            return asyncio.get_running_loop().create_task(self._end_begun(turn, end))
        return self._writer.submit_row(self._write_ended, EndedTurn(deferred, end))

    async def _end_begun(self: _Store, turn: Turn, end: TurnEnd) -> None:
        """Ends a turn whose beginning is written, or is being written."""
        deferred = await self._deferred.take_unwritten(turn.session_id)
        if deferred is None:
            await self._writer.submit(lambda db: turns.end_turn(db, turn, end, self._times(db)))
            self._lease_waiters.announce(turn.session_id)
        else:
            await self._writer.submit_row(self._write_ended, EndedTurn(deferred, end))

    def _write_ended(self: _Store, db: apsw.Connection, ended: Sequence[EndedTurn]) -> None:
        write_turns(db, ended, lambda: self._times(db))

    async def renew_leases(self: _Store, turns: Iterable[Turn], claims: Iterable[Claim], lease_seconds: float) -> None:
        """Extends the leases that are still held, in one transaction."""
        running, held = list(turns), list(claims)

        def job(db: apsw.Connection) -> None:
            expires = self._clock.lease_time(db) + lease_seconds
            renew_turns(db, running, expires)
            renew_claims(db, held, expires)

        if running or held:
            await self._writer.submit(job)
