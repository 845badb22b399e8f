"""Turns in new sessions whose beginning is written later: with their end, or in a batch with others."""

import asyncio
from collections.abc import Callable, Sequence
from operator import add
from typing import Any, NamedTuple

import apsw

from parley.core.ports import Turn, TurnBegin, TurnEnd
from parley.core.sessions import history
from parley.stores import records
from parley.stores.serialized import Serialized, serialize
from parley.stores.sqlite.clock import Times
from parley.stores.sqlite.rows import Insert
from parley.stores.sqlite.turns import MESSAGES, settle_end, stored_metadata

_WRITE_SECONDS = 0.1

_SESSIONS = Insert(
    "sessions (id, account, model, created, updated, completed_messages, bytes, turn_count, lease_fence)",
    "(?, ?, ?, ?, ?, ?, ?, 1, 1)",
)
_TURNS = Insert(
    "turns (session_id, state, reason, created, asked, messages, tokens, bytes, continues, metadata, usage, receipt, "
    "number)",
    "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1)",
)


class DeferredBegin(NamedTuple):
    """The beginning of a turn that is not written.

    Attributes:
        begin: The turn.
        sent: The serialized messages of the request.
        wall: The time of the beginning, by the wall clock.
        lease_seconds: The duration of the lease.
    """

    begin: TurnBegin
    sent: Serialized
    wall: float
    lease_seconds: float


class DeferredBegins:
    """Keeps beginnings until their turn ends, or for 0.1 to 0.2 s. A failed write is repeated while the turn runs.

    Args:
        write: Starts to write a beginning.
    """

    def __init__(self, write: Callable[[DeferredBegin], asyncio.Future[Any]]) -> None:
        self._write = write
        # Each run of the timer writes those that were added before the preceding run.
        self._recent: dict[str, DeferredBegin] = {}
        self._older: dict[str, DeferredBegin] = {}
        self._writing: dict[str, asyncio.Future[Any]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, deferred: DeferredBegin) -> Turn:
        """Keeps a beginning and returns its turn."""
        begin = deferred.begin
        self._recent[begin.session_id] = deferred
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_WRITE_SECONDS, self._run)
        return Turn(begin.session_id, 1, 1, messages=list(begin.messages))

    def take(self, session_id: str) -> DeferredBegin | None:
        """Removes and returns the beginning of a turn that ends; None if it is written, or is being written."""
        return None if session_id in self._writing else self._pop(session_id)

    def _pop(self, session_id: str) -> DeferredBegin | None:
        return self._recent.pop(session_id, None) or self._older.pop(session_id, None)

    async def take_unwritten(self, session_id: str) -> DeferredBegin | None:
        """Waits while the beginning of a turn is written, and does the same if that has failed."""
        writing = self._writing.get(session_id)
        if writing is not None:
            await asyncio.wait({writing})
        return self._pop(session_id)

    async def close(self) -> None:
        """Writes all, once."""
        for deferred in (*self._older.values(), *self._recent.values()):
            self._start(deferred)
        if self._writing:
            await asyncio.wait(set(self._writing.values()))
        self._recent, self._older = {}, {}
        if self._timer is not None:
            self._timer.cancel()

    def _run(self) -> None:
        for deferred in self._older.values():
            self._start(deferred)
        self._older, self._recent = self._recent, {}
        more = self._older or self._writing
        self._timer = asyncio.get_running_loop().call_later(_WRITE_SECONDS, self._run) if more else None

    def _start(self, deferred: DeferredBegin) -> None:
        session_id = deferred.begin.session_id
        writing = self._writing[session_id] = self._write(deferred)

        def on_done(done: asyncio.Future[Any]) -> None:
            del self._writing[session_id]
            if done.exception() is not None:
                self.add(deferred)

        writing.add_done_callback(on_done)


class EndedTurn(NamedTuple):
    """A turn whose beginning is written with its end."""

    deferred: DeferredBegin
    end: TurnEnd


def write_turns(db: apsw.Connection, turns: Sequence[EndedTurn], times: Callable[[], Times]) -> None:
    """Writes new sessions with their first turns, which have ended. Raises TurnLost if a claim is lost."""
    sessions, rows, messages = [], [], []
    for (begin, sent, wall, _), end in turns:
        session_id, answer = begin.session_id, serialize(end.answer)
        asked, stored = len(sent.rows), [*sent.rows, *answer.rows]
        completed = len(stored) if end.state == "completed" else 0
        sessions.append((session_id, begin.account, begin.model, wall, wall, completed, sent.bytes + answer.bytes))
        size = map(add, sent.size, answer.size)
        more = (history.starts_with_tool_result(begin.messages), stored_metadata(begin))
        rows.append((session_id, end.state, end.reason, wall, asked, *size, *more, *records.usage_and_receipt(end)))
        messages += [(session_id, 1, position, *row) for position, row in enumerate(stored)]
    _SESSIONS.run(db, sessions)
    _TURNS.run(db, rows)
    MESSAGES.run(db, messages)
    for deferred, end in turns:
        if end.claim is not None or end.settlement is not None:
            settle_end(db, deferred.begin.session_id, end, times())
