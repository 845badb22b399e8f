"""Turns: begun before the backend is called, ended after it, whatever happens in between.

A turn holds its session's lease. While it runs, the lease is renewed; a worker that dies stops renewing, and the
session is free again when the lease runs out. What a turn's end writes runs in a task of its own, because the call that
it belongs to may be cancelled at any await.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from parley.config import Model
from parley.core import ids
from parley.core.errors import InvalidRequest, ParleyError
from parley.core.ports import Caller, SessionStore, Turn, TurnBegin
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.message_pb2 import Message

_LEASE_SECONDS = 10.0
_RENEW_SECONDS = 3.0

_log = structlog.get_logger()


class Turns:
    """Begins, renews and ends the turns of one worker."""

    def __init__(self, store: SessionStore, renew_seconds: float = _RENEW_SECONDS) -> None:
        self._store = store
        self._renew_seconds = renew_seconds
        self._running: dict[tuple[str, int], Turn] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._renewal: asyncio.Task[None] | None = None

    async def begin(self, request: CreateChatCompletionRequest, caller: Caller, model: Model) -> Turn | None:
        """Begins a turn where the model and the request want one kept; None where they do not.

        Raises InvalidRequest, SessionNotFound, SessionBusy, StoreUnavailable.
        """
        if not _keeps(request, model):
            return None
        new = not request.HasField("session_id")
        session_id = ids.session_id() if new else request.session_id
        begin = TurnBegin(caller.account, model.id, session_id, new, request.messages)
        turn = await self._begin(begin)
        self._running[turn.session_id, turn.number] = turn
        if self._renewal is None:
            self._renewal = asyncio.create_task(self._renew())
        return turn

    async def commit(self, turn: Turn, answer: Message | None) -> None:
        """Completes the turn; returns when it is on disk. Raises TurnLost, StoreUnavailable."""
        await asyncio.shield(self._end(turn, self._store.commit_turn(turn, [answer] if answer else [])))

    def abandon(self, turn: Turn, reason: str, partial: Message | None) -> None:
        """Marks the turn `incomplete(reason)` and keeps what was said, without making the caller wait."""
        self._end(turn, self._abandon(turn, reason, [partial] if partial else []))

    async def close(self) -> None:
        """Waits for turns that are being ended, and stops renewing."""
        if self._ending:
            await asyncio.wait(self._ending)
        if self._renewal is not None:
            self._renewal.cancel()

    async def _begin(self, begin: TurnBegin) -> Turn:
        """Begins the turn; a caller who leaves meanwhile leaves no lease behind."""
        task = asyncio.create_task(self._store.begin_turn(begin, _LEASE_SECONDS))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(self._abandon_begun)
            raise

    def _abandon_begun(self, task: asyncio.Task[Turn]) -> None:
        if not task.cancelled() and task.exception() is None:
            self.abandon(task.result(), "cancelled", None)

    def _end(self, turn: Turn, write: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(write)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        task.add_done_callback(lambda _: self._running.pop((turn.session_id, turn.number), None))
        return task

    async def _abandon(self, turn: Turn, reason: str, partial: list[Message]) -> None:
        try:
            await self._store.abandon_turn(turn, reason, partial)
        except ParleyError as error:
            _log.warning("turn not settled", session=turn.session_id, turn=turn.number, error=error.message)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._renew_seconds)
            if not self._running:
                continue
            try:
                await self._store.renew_leases(list(self._running.values()), _LEASE_SECONDS)
            except ParleyError as error:
                _log.warning("leases not renewed", turns=len(self._running), error=error.message, cause=error.cause)


def _keeps(request: CreateChatCompletionRequest, model: Model) -> bool:
    """Tells whether this call is a turn of a session. Raises InvalidRequest where the request contradicts itself."""
    if request.HasField("session_id"):
        if request.HasField("store") and not request.store:
            raise InvalidRequest("`store` is false, but `chatSessionId` names a session; leave one out", param="store")
        if model.sessions == "off":
            message = f'`chatSessionId` cannot be used: the model "{model.id}" keeps no sessions; leave it out'
            raise InvalidRequest(message, param="chatSessionId")
        return True
    if request.HasField("store"):
        if request.store and model.sessions == "off":
            raise InvalidRequest(f'`store` cannot be true: the model "{model.id}" keeps no sessions', param="store")
        return request.store
    return model.sessions == "auto"
