"""Turns in new sessions whose beginning is written later: with their end, or in a batch with others."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import apsw
import orjson

from parley.core.ports import Turn, TurnBegin, TurnEnd
from parley.core.sessions import history
from parley.stores import records
from parley.stores.serialized import Serialized, serialize
from parley.stores.sqlite.clock import Times
from parley.stores.sqlite.turns import append, settle_end

_WRITE_SECONDS = 0.1

_CREATE = """
INSERT INTO sessions (id, account, model, created, updated, turn_count, lease_fence, completed_messages, bytes)
VALUES (?, ?, ?, ?, ?, 1, 1, ?, ?)
"""
_ADD_TURN = """
INSERT INTO turns (session_id, number, state, reason, created, asked, messages, tokens, bytes, continues, metadata,
  usage, receipt)
VALUES (?, 1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


@dataclass(frozen=True, slots=True)
class DeferredBegin:
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

    async def take(self, session_id: str) -> DeferredBegin | None:
        """Removes and returns the beginning of a turn that ends; None if it is written. Waits while it is written."""
        writing = self._writing.get(session_id)
        if writing is not None:
            await asyncio.wait({writing})
        return self._recent.pop(session_id, None) or self._older.pop(session_id, None)

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


def write_turn(db: apsw.Connection, deferred: DeferredBegin, end: TurnEnd, times: Times) -> None:
    """Writes a new session with its first turn, which has ended. Raises TurnLost if its claim is lost."""
    begin, sent, answer = deferred.begin, deferred.sent, serialize(end.answer)
    session, wall, asked = begin.session_id, deferred.wall, len(sent.rows)
    completed = asked + len(answer.rows) if end.state == "completed" else 0
    stored = sent.bytes + answer.bytes
    db.execute(_CREATE, (session, begin.account, begin.model, wall, wall, completed, stored))
    size = (one + other for one, other in zip(sent.size, answer.size, strict=True))
    continues = history.starts_with_tool_result(begin.messages)
    metadata = orjson.dumps(dict(begin.metadata)).decode() if begin.metadata else None
    more = (continues, metadata, *records.usage_and_receipt(end))
    db.execute(_ADD_TURN, (session, end.state, end.reason, wall, asked, *size, *more))
    append(db, (session, 1), 0, (*sent.rows, *answer.rows))
    settle_end(db, session, end, times)
