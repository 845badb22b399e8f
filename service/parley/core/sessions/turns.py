"""Turns and `Idempotency-Key`s: held while a call is answered, ended with it, whatever happens in between.

A turn holds its session's lease, and a key is claimed for a call in the same way. While the call runs, both are
renewed; a worker that dies stops renewing, and they are free again when the lease runs out. What a call's beginning and
end write runs in tasks of their own, because the call may be cancelled at any await.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import structlog

from parley.config import Model
from parley.core.background import PeriodicTask
from parley.core.errors import InvalidRequest, ParleyError, TurnLost
from parley.core.messages import ids
from parley.core.offload import offload
from parley.core.ports import Caller, Charge, Claim, Store, Turn, TurnBegin, TurnEnd, Window
from parley.core.sessions.idempotency import LEASE_SECONDS, Key, digest
from parley.core.sessions.queue import Queue
from parley.core.streaming.accumulator import first_message, reported_usage
from parley.core.usage.limits import UNLIMITED, Admission
from parley.v1.chat_completions_pb2 import ChatCompletion, CreateChatCompletionRequest
from parley.v1.message_pb2 import Message
from parley.v1.receipt_pb2 import Receipt

_RENEW_SECONDS = 3.0
_FAIL_SECONDS = 1.0

_log = structlog.get_logger()

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class CallLease:
    """What a call holds in the store while it is answered: a turn, a claim, tokens of its limits, or nothing.

    `reserved` are the tokens that are stored with the turn.
    """

    turn: Turn | None = None
    claim: Claim | None = None
    admission: Admission = UNLIMITED
    reserved: Sequence[Charge] = ()

    @property
    def is_persisted(self) -> bool:
        """Tells whether the store keeps anything of the call."""
        return self.turn is not None or self.claim is not None

    @property
    def session_id(self) -> str | None:
        """The session that keeps the call; None where none does."""
        return self.turn.session_id if self.turn else None

    def conversation(self, request: CreateChatCompletionRequest) -> Sequence[Message]:
        """Returns the messages that go to the model: in a session what it has, and what is new to it."""
        return [*self.turn.history, *self.turn.messages] if self.turn else request.messages

    def charges(self) -> Sequence[Charge]:
        """Returns what settles the limits together with the turn; without one they are settled by themselves."""
        return self.admission.take_charges() if self.turn else ()

    def prior_messages(self, request: CreateChatCompletionRequest) -> Sequence[Message]:
        """Returns what the conversation has besides the request's messages, which may repeat some of it."""
        if self.turn is None:
            return []
        more = len(self.turn.history) + len(self.turn.messages) - len(request.messages)
        return self.turn.history[: max(0, more)]


class Turns:
    """Begins, renews and ends what the calls of one worker hold. `queue` has those who wait for their turn."""

    def __init__(self, store: Store, renew_seconds: float = _RENEW_SECONDS) -> None:
        self._store = store
        self.queue = Queue(store)
        self._running: set[CallLease] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._renewal = PeriodicTask("the renewal of leases", self._renew, renew_seconds)

    async def claim(
        self, key: Key | None, request: CreateChatCompletionRequest, caller: Caller
    ) -> tuple[CallLease, ChatCompletion | None]:
        """Claims the call's key, if it has one; with the answer where the key has got it already.

        Raises KeyInUse, KeyReused, ReplyDeleted, StoreUnavailable.
        """
        lease = CallLease()
        if key is None:
            return lease, None
        hashed = await offload(digest, request)
        claiming = self._store.claim(caller.account, key.method, key.text, hashed, LEASE_SECONDS)
        claimed = await self._shielded(claiming, self._release_abandoned)
        if isinstance(claimed, bytes):
            return lease, ChatCompletion.FromString(claimed)
        lease.claim = claimed
        self._track(lease)
        return lease, None

    async def begin(
        self,
        lease: CallLease,
        request: CreateChatCompletionRequest,
        caller: Caller,
        model: Model,
        deadline: float | None = None,
    ) -> None:
        """Begins a turn where the model and the request want one kept; waits for it where the model queues turns.

        `deadline` is a time of the event loop's clock. Raises InvalidRequest, SessionNotFound, SessionBusy,
        DeadlineExceeded, StoreUnavailable.
        """
        if not _persists(request, model):
            return
        lease.reserved = tuple(lease.admission.reserved)
        begin = _turn_begin(request, caller, model, lease.reserved)

        async def try_it() -> Turn:
            return await self._shielded(self._store.begin_turn(begin, LEASE_SECONDS), self._release_abandoned)

        if begin.new or model.concurrent_turns == "reject":
            lease.turn = await try_it()
        else:
            lease.turn = await self.queue.wait(begin.session_id, try_it, model.queue_timeout, deadline)
        self._track(lease)

    async def commit(self, lease: CallLease, completion: ChatCompletion, receipt: Receipt | None = None) -> None:
        """Completes what is held; returns when it is on disk. Raises TurnLost, StoreUnavailable."""
        if not lease.is_persisted:
            return
        message = first_message(completion)
        end = TurnEnd(
            "completed",
            answer=[message] if message else [],
            usage=reported_usage(completion),
            claim=lease.claim,
            reply=completion.SerializeToString() if lease.claim else b"",
            charges=lease.charges(),
            receipt=receipt,
        )
        await asyncio.shield(self._end(lease, self._commit(lease, end)))

    async def fail(
        self,
        lease: CallLease,
        reason: str,
        partial: ChatCompletion | None,
        receipt: Receipt | None = None,
        *,
        wait: bool,
    ) -> None:
        """Ends what is held as `incomplete(reason)` and keeps what was said.

        `wait` is for a caller who is told that the call failed: he may come back at once, and should find neither his
        session nor his key in use. A store that hangs does not keep him for long.
        """
        ending = self.abandon(lease, reason, partial, receipt)
        if ending is not None and wait:
            await asyncio.wait({ending}, timeout=_FAIL_SECONDS)

    def abandon(
        self, lease: CallLease, reason: str, partial: ChatCompletion | None, receipt: Receipt | None = None
    ) -> asyncio.Task[None] | None:
        """Does the same without waiting; returns what still writes."""
        if not lease.is_persisted:
            return None
        message = first_message(partial) if partial else None
        usage = reported_usage(partial) if partial else None
        answer = [message] if message else []
        end = TurnEnd("incomplete", reason, answer, usage, lease.claim, charges=lease.charges(), receipt=receipt)
        return self._end(lease, self._abandon(lease, end))

    async def close(self) -> None:
        """Waits for what is being ended, and stops renewing."""
        while self._ending:
            await asyncio.wait(self._ending)
        await self._renewal.stop()

    async def _shielded(self, acquire: Coroutine[Any, Any, T], on_abandoned: Callable[[T], None]) -> T:
        """Awaits an acquisition. Where the call is cancelled meanwhile, `on_abandoned` gets what was acquired."""
        task = asyncio.create_task(acquire)

        def on_done(done: asyncio.Task[T]) -> None:
            if not done.cancelled() and done.exception() is None:
                on_abandoned(done.result())

        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(on_done)
            raise

    def _release_abandoned(self, acquired: Turn | Claim | bytes) -> None:
        """Gives back what was begun for a caller who is no longer there."""
        if isinstance(acquired, Turn):
            self.abandon(CallLease(turn=acquired), "cancelled", None)
        elif isinstance(acquired, Claim):
            self.abandon(CallLease(claim=acquired), "cancelled", None)

    def _track(self, lease: CallLease) -> None:
        self._running.add(lease)
        self._renewal.start()

    def _end(self, lease: CallLease, write: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(write)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        task.add_done_callback(lambda _: self._running.discard(lease))
        return task

    async def _commit(self, lease: CallLease, end: TurnEnd) -> None:
        try:
            await self._write(lease, end)
        except TurnLost:
            await self._release(lease, end.charges)
            raise

    async def _abandon(self, lease: CallLease, end: TurnEnd) -> None:
        try:
            await self._write(lease, end)
        except ParleyError as error:
            turn = lease.turn
            position = {"session": turn.session_id, "turn": turn.number} if turn else {}
            _log.warning("turn not settled", **position, error=error.message, cause=error.cause)
            await self._release(lease, end.charges if isinstance(error, TurnLost) else ())

    async def _write(self, lease: CallLease, end: TurnEnd) -> None:
        if lease.turn:
            await self._store.end_turn(lease.turn, end)
        elif lease.claim:
            await self._store.end_claim(lease.claim, end.reply if end.state == "completed" else None)

    async def _release(self, lease: CallLease, charges: Sequence[Charge]) -> None:
        """Settles the limits and frees the key of a turn that could not be ended. At worst the key's lease runs out.

        The reservation itself is stored with the turn, and given back with it.
        """
        try:
            if charges:
                reserved = {(one.subject, one.kind): one.amount for one in lease.reserved}
                await self._store.settle(
                    [replace(one, amount=one.amount + reserved.get((one.subject, one.kind), 0)) for one in charges]
                )
            if lease.claim is not None:
                await self._store.end_claim(lease.claim, None)
        except ParleyError as error:
            _log.info("not given up", error=error.message, cause=error.cause)

    async def _renew(self) -> None:
        turns = [lease.turn for lease in self._running if lease.turn]
        claims = [lease.claim for lease in self._running if lease.claim]
        if turns or claims:
            await self._store.renew_leases(turns, claims, LEASE_SECONDS)


def _turn_begin(
    request: CreateChatCompletionRequest, caller: Caller, model: Model, reserved: Sequence[Charge]
) -> TurnBegin:
    new = not request.HasField("session_id")
    return TurnBegin(
        caller.account,
        model.id,
        ids.session_id() if new else request.session_id,
        new,
        request.messages,
        Window(
            model.history.max_messages, model.history.max_tokens, model.history.load_messages, model.history.load_bytes
        ),
        dict(request.metadata),
        reserved,
    )


def _persists(request: CreateChatCompletionRequest, model: Model) -> bool:
    """Tells whether this call is a turn of a session. Raises InvalidRequest where the request contradicts itself."""
    if request.continue_final_message:
        _reject_continuation(request)
        return False
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


def _reject_continuation(request: CreateChatCompletionRequest) -> None:
    """Raises InvalidRequest where the rest of an answer, which is no turn of its own, should become one."""
    for is_asked, name in ((request.HasField("session_id"), "chatSessionId"), (request.store, "store")):
        if is_asked:
            message = f"`{name}` cannot be used with `continue_final_message`, which no session keeps; leave one out"
            raise InvalidRequest(message, param=name)
