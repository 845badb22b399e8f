"""Turns and idempotency keys: acquired at the start of a call, released at its end.

A turn holds the lease of its session, and a call holds the lease of its idempotency key. Both are renewed while the
call runs; the leases of a crashed worker expire. The writes at the start and the end of a call run in tasks of their
own, because the call may be cancelled at any `await`.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

import structlog

from parley.config import Model
from parley.core.background import PeriodicTask
from parley.core.errors import ParleyError, SessionNotFound, SessionOfOtherModel, TurnLost
from parley.core.messages.text_completion import TextCompletion, as_message
from parley.core.offload import offload
from parley.core.ports import Caller, Claim, Settlement, Store, Turn, TurnBegin, TurnEnd
from parley.core.session_ids import is_chosen, public_id, session_keys
from parley.core.sessions.call_lease import CallLease
from parley.core.sessions.idempotency import LEASE_SECONDS, Key, digest
from parley.core.sessions.queue import Queue
from parley.core.sessions.turn_request import chooses_ids, turn_begin
from parley.core.streaming.accumulator import stored_answer
from parley.v1.chat_completions_pb2 import ChatCompletion, CreateChatCompletionRequest
from parley.v1.receipt_pb2 import Receipt

_RENEW_SECONDS = 3.0
_FAIL_SECONDS = 1.0

_log = structlog.get_logger()

A = TypeVar("A", Turn, Claim | bytes)


class Turns:
    """Begins, renews and ends the leases of one worker's calls.

    `queue` holds the calls that wait for a session; `leases_lost` counts the turns that another call has ended.

    Args:
        store: The store.
        session_bytes: The most bytes of one session; None for no limit.
        renew_seconds: The pause between two renewals.
    """

    def __init__(self, store: Store, session_bytes: int | None = None, renew_seconds: float = _RENEW_SECONDS) -> None:
        self._store = store
        self.session_bytes = session_bytes
        self.queue = Queue(store)
        self.leases_lost = 0
        self._running: set[CallLease] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._renewal = PeriodicTask("lease renewal", self._renew, renew_seconds)

    @property
    def held(self) -> int:
        """The number of calls that hold a lease."""
        return len(self._running)

    async def claim(
        self, key: Key, request: CreateChatCompletionRequest, caller: Caller
    ) -> tuple[CallLease, ChatCompletion | None]:
        """Claims the idempotency key of a call.

        Returns:
            The lease, and the stored answer of an earlier call with the key.

        Raises:
            KeyInUse: Another call holds the key.
            KeyReused: The key was used with a different request.
            ReplyDeleted: The reply was deleted with its session.
            StoreUnavailable: The store cannot be reached.
        """
        lease = CallLease()
        hashed = await offload(digest, request)
        claimed = await self._shielded(
            lambda: self._store.claim(caller.account, key.method, key.text, hashed, LEASE_SECONDS)
        )
        if isinstance(claimed, bytes):
            return lease, ChatCompletion.FromString(claimed)
        lease.claim = claimed
        self._track(lease)
        return lease, None

    async def begin(  # noqa: PLR0913 - what a turn depends on
        self,
        lease: CallLease,
        request: CreateChatCompletionRequest,
        caller: Caller,
        model: Model,
        deadline: float | None = None,
        *,
        may_defer: bool = False,
    ) -> None:
        """Begins the turn of a request that is one; waits for the session if the model queues.

        Args:
            lease: Receives the turn.
            request: The request.
            caller: The caller, whose account owns the session.
            model: The requested model.
            deadline: The call's deadline, a time of the event loop's clock; None for none.
            may_defer: Whether the caller learns the id of a new session with the complete answer only, so that the
                store may write the beginning of its turn later.

        Raises:
            InvalidRequest: The request contradicts itself, its model or its session.
            SessionNotFound: The account has no such session, or its key may not use the session's model.
            SessionBusy: Another turn holds the session.
            DeadlineExceeded: The deadline passed while the call waited.
            StoreUnavailable: The store cannot be reached.
        """
        begin = turn_begin(request, caller, model, self.session_bytes)
        turn = self._store.defer_turn(begin, LEASE_SECONDS) if may_defer and begin.new else None
        lease.turn = turn = turn or await self._begin(begin, caller, model, deadline)
        lease.session_id = public_id(turn.session_id)
        self._track(lease)

    async def commit(
        self, lease: CallLease, completion: ChatCompletion | TextCompletion, receipt: Receipt | None = None
    ) -> None:
        """Completes the turn and the claim; returns when both are on disk. Raises TurnLost, StoreUnavailable."""
        if not lease.is_persisted:
            return
        message, usage = stored_answer(completion)
        reply = as_message(completion).SerializeToString() if lease.claim else b""
        answer = [] if message is None else [message]
        end = TurnEnd("completed", None, answer, usage, lease.claim, reply, lease.settlement(), receipt)
        writing = self._write(lease, end)
        try:
            await asyncio.shield(writing)
        except BaseException as error:
            finishing = self._end(lease, self._finish(lease, end, writing))
            if isinstance(error, TurnLost):
                await asyncio.shield(finishing)
            raise
        self._running.discard(lease)

    async def fail(
        self,
        lease: CallLease,
        reason: str,
        partial: ChatCompletion | None,
        receipt: Receipt | None = None,
        *,
        wait: bool,
    ) -> None:
        """Ends the turn as `incomplete(reason)`, stores the partial answer and releases the claim.

        Args:
            lease: What the call holds.
            reason: Why the turn is incomplete.
            partial: The answer so far.
            receipt: The attempts of the call.
            wait: Waits up to a second until the session and the key are released, so that an immediate retry succeeds.
        """
        ending = self.abandon(lease, reason, partial, receipt)
        if ending is not None and wait:
            await asyncio.wait({ending}, timeout=_FAIL_SECONDS)

    def abandon(
        self, lease: CallLease, reason: str, partial: ChatCompletion | None, receipt: Receipt | None = None
    ) -> asyncio.Task[None] | None:
        """Does the same as `fail` in a task and returns the task; None if there is nothing to write."""
        if not lease.is_persisted:
            return None
        message, usage = stored_answer(partial) if partial else (None, None)
        answer = [] if message is None else [message]
        end = TurnEnd("incomplete", reason, answer, usage, lease.claim, settlement=lease.settlement(), receipt=receipt)
        return self._end(lease, self._abandon(lease, end))

    async def close(self) -> None:
        """Waits for pending writes, then stops the renewal."""
        while self._ending:
            await asyncio.wait(self._ending)
        await self._renewal.stop()

    async def _begin(self, begin: TurnBegin, caller: Caller, model: Model, deadline: float | None) -> Turn:
        """Begins a turn in the session with the first key that the account has, or in a new one."""
        if begin.new or begin.may_create:
            return await self._begin_at(begin, caller, model, deadline)
        try:
            return await self._begin_at(begin, caller, model, deadline)
        except SessionNotFound:
            for key in session_keys(caller.account, public_id(begin.session_id)):
                if key != begin.session_id:
                    other = replace(begin, session_id=key, may_create=is_chosen(key) and chooses_ids(model))
                    return await self._begin_at(other, caller, model, deadline)
            raise

    async def _begin_at(self, begin: TurnBegin, caller: Caller, model: Model, deadline: float | None) -> Turn:
        async def begin_turn() -> Turn:
            try:
                return await self._shielded(lambda: self._store.begin_turn(begin, LEASE_SECONDS))
            except SessionOfOtherModel as error:
                if caller.may_use(error.session_model):
                    raise
                raise SessionNotFound(begin.session_id) from None

        if begin.new or model.concurrent_turns == "reject":
            return await begin_turn()
        return await self.queue.wait(begin.session_id, begin_turn, model.queue_timeout, deadline)

    async def _shielded(self, acquire: Callable[[], Coroutine[Any, Any, A]]) -> A:
        """Awaits an acquisition, once the store is available. If the call is cancelled meanwhile, it is released."""
        await self._store.wait_available()
        task = asyncio.get_running_loop().create_task(acquire())

        def on_done(done: asyncio.Task[A]) -> None:
            if not done.cancelled() and done.exception() is None:
                self._release_abandoned(done.result())

        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(on_done)
            raise

    def _release_abandoned(self, acquired: Turn | Claim | bytes) -> None:
        """Releases what was acquired for a cancelled call."""
        if isinstance(acquired, Turn):
            self.abandon(CallLease(turn=acquired), "cancelled", None)
        elif isinstance(acquired, Claim):
            self.abandon(CallLease(claim=acquired), "cancelled", None)

    def _track(self, lease: CallLease) -> None:
        self._running.add(lease)
        self._renewal.start()

    def _end(self, lease: CallLease, write: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(write)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        task.add_done_callback(lambda _: self._running.discard(lease))
        return task

    async def _finish(self, lease: CallLease, end: TurnEnd, writing: asyncio.Future[None]) -> None:
        """Ends a commit that has failed, or whose call was cancelled meanwhile."""
        await asyncio.wait({writing})
        if isinstance(writing.exception(), TurnLost):
            self.leases_lost += 1
            await self._release(lease, end.settlement)

    async def _abandon(self, lease: CallLease, end: TurnEnd) -> None:
        try:
            await self._write(lease, end)
        except ParleyError as error:
            turn = lease.turn
            position = {"session": public_id(turn.session_id), "turn": turn.number} if turn else {}
            self.leases_lost += isinstance(error, TurnLost)
            _log.warning("turn not stored", **position, error=error.message, cause=error.cause)
            await self._release(lease, end.settlement if isinstance(error, TurnLost) else None)

    def _write(self, lease: CallLease, end: TurnEnd) -> asyncio.Future[None]:
        """Starts to write the end of the turn, or of the claim of a call without one."""
        if lease.turn is not None:
            return self._store.end_turn(lease.turn, end)
        assert lease.claim is not None  # noqa: S101 - the lease is persisted
        reply = end.reply if end.state == "completed" else None
        return asyncio.get_running_loop().create_task(self._store.end_claim(lease.claim, reply))

    async def _release(self, lease: CallLease, settlement: Settlement | None) -> None:
        """Settles the limits and releases the key of a turn that could not be ended.

        If this fails too, the leases of the reservation and of the key expire.
        """
        try:
            if settlement is not None:
                await self._store.settle(settlement)
            if lease.claim is not None:
                await self._store.end_claim(lease.claim, None)
        except ParleyError as error:
            _log.info("turn not released", error=error.message, cause=error.cause)

    async def _renew(self) -> None:
        turns = [lease.turn for lease in self._running if lease.turn]
        claims = [lease.claim for lease in self._running if lease.claim]
        if turns or claims:
            await self._store.renew_leases(turns, claims, LEASE_SECONDS)
