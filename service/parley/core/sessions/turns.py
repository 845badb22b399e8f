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
from parley.core.background import Repeating
from parley.core.errors import InvalidRequest, ParleyError, TurnLost
from parley.core.messages import ids
from parley.core.offload import offload
from parley.core.ports import Caller, Charge, Claim, Store, Turn, TurnBegin, TurnEnd, Window
from parley.core.sessions.idempotency import LEASE_SECONDS, Key, digest
from parley.core.sessions.queue import Queue
from parley.core.streaming.accumulator import cost, said
from parley.core.usage.limits import UNLIMITED, Admission
from parley.v1.chat_completions_pb2 import ChatCompletion, CreateChatCompletionRequest
from parley.v1.message_pb2 import Message
from parley.v1.receipt_pb2 import Receipt

_RENEW_SECONDS = 3.0
_FAIL_SECONDS = 1.0

_log = structlog.get_logger()

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Held:
    """What a call holds in the store while it is answered: a turn, a claim, tokens of its limits, or nothing.

    `reserved` are the tokens that are stored with the turn.
    """

    turn: Turn | None = None
    claim: Claim | None = None
    admission: Admission = UNLIMITED
    reserved: Sequence[Charge] = ()

    @property
    def is_kept(self) -> bool:
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
        return self.admission.hand_over() if self.turn else ()

    def earlier(self, request: CreateChatCompletionRequest) -> Sequence[Message]:
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
        self._running: set[Held] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._renewal = Repeating("the renewal of leases", self._renew, renew_seconds)

    async def claim(
        self, key: Key | None, request: CreateChatCompletionRequest, caller: Caller
    ) -> tuple[Held, ChatCompletion | None]:
        """Claims the call's key, if it has one; with the answer where the key has got it already.

        Raises KeyInUse, KeyReused, ReplyDeleted, StoreUnavailable.
        """
        held = Held()
        if key is None:
            return held, None
        hashed = await offload(digest, request)
        claiming = self._store.claim(caller.account, key.method, key.text, hashed, LEASE_SECONDS)
        claimed = await self._surely(claiming, self._left)
        if isinstance(claimed, bytes):
            return held, ChatCompletion.FromString(claimed)
        held.claim = claimed
        self._hold(held)
        return held, None

    async def begin(
        self,
        held: Held,
        request: CreateChatCompletionRequest,
        caller: Caller,
        model: Model,
        deadline: float | None = None,
    ) -> None:
        """Begins a turn where the model and the request want one kept; waits for it where the model queues turns.

        `deadline` is a time of the event loop's clock. Raises InvalidRequest, SessionNotFound, SessionBusy,
        DeadlineExceeded, StoreUnavailable.
        """
        if not _keeps(request, model):
            return
        held.reserved = tuple(held.admission.reserved)
        begin = _turn_begin(request, caller, model, held.reserved)

        async def try_it() -> Turn:
            return await self._surely(self._store.begin_turn(begin, LEASE_SECONDS), self._left)

        if begin.new or model.concurrent_turns == "reject":
            held.turn = await try_it()
        else:
            held.turn = await self.queue.wait(begin.session_id, try_it, model.queue_timeout, deadline)
        self._hold(held)

    async def commit(self, held: Held, completion: ChatCompletion, receipt: Receipt | None = None) -> None:
        """Completes what is held; returns when it is on disk. Raises TurnLost, StoreUnavailable."""
        if not held.is_kept:
            return
        message = said(completion)
        end = TurnEnd(
            "completed",
            answer=[message] if message else [],
            usage=cost(completion),
            claim=held.claim,
            reply=completion.SerializeToString() if held.claim else b"",
            charges=held.charges(),
            receipt=receipt,
        )
        await asyncio.shield(self._end(held, self._commit(held, end)))

    async def fail(
        self, held: Held, reason: str, partial: ChatCompletion | None, receipt: Receipt | None = None, *, wait: bool
    ) -> None:
        """Ends what is held as `incomplete(reason)` and keeps what was said.

        `wait` is for a caller who is told that the call failed: he may come back at once, and should find neither his
        session nor his key in use. A store that hangs does not keep him for long.
        """
        ending = self.abandon(held, reason, partial, receipt)
        if ending is not None and wait:
            await asyncio.wait({ending}, timeout=_FAIL_SECONDS)

    def abandon(
        self, held: Held, reason: str, partial: ChatCompletion | None, receipt: Receipt | None = None
    ) -> asyncio.Task[None] | None:
        """Does the same without waiting; returns what still writes."""
        if not held.is_kept:
            return None
        message = said(partial) if partial else None
        usage = cost(partial) if partial else None
        answer = [message] if message else []
        end = TurnEnd("incomplete", reason, answer, usage, held.claim, charges=held.charges(), receipt=receipt)
        return self._end(held, self._abandon(held, end))

    async def close(self) -> None:
        """Waits for what is being ended, and stops renewing."""
        while self._ending:
            await asyncio.wait(self._ending)
        await self._renewal.stop()

    async def _surely(self, beginning: Coroutine[Any, Any, T], left: Callable[[T], None]) -> T:
        """Awaits what begins to hold something; where the caller leaves meanwhile, `left` is told what came of it."""
        task = asyncio.create_task(beginning)

        def begun(done: asyncio.Task[T]) -> None:
            if not done.cancelled() and done.exception() is None:
                left(done.result())

        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(begun)
            raise

    def _left(self, begun: Turn | Claim | bytes) -> None:
        """Gives back what was begun for a caller who is no longer there."""
        if isinstance(begun, Turn):
            self.abandon(Held(turn=begun), "cancelled", None)
        elif isinstance(begun, Claim):
            self.abandon(Held(claim=begun), "cancelled", None)

    def _hold(self, held: Held) -> None:
        self._running.add(held)
        self._renewal.start()

    def _end(self, held: Held, write: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(write)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        task.add_done_callback(lambda _: self._running.discard(held))
        return task

    async def _commit(self, held: Held, end: TurnEnd) -> None:
        try:
            await self._write(held, end)
        except TurnLost:
            await self._give_up(held, end.charges)
            raise

    async def _abandon(self, held: Held, end: TurnEnd) -> None:
        try:
            await self._write(held, end)
        except ParleyError as error:
            turn = held.turn
            place = {"session": turn.session_id, "turn": turn.number} if turn else {}
            _log.warning("turn not settled", **place, error=error.message, cause=error.cause)
            await self._give_up(held, end.charges if isinstance(error, TurnLost) else ())

    async def _write(self, held: Held, end: TurnEnd) -> None:
        if held.turn:
            await self._store.end_turn(held.turn, end)
        elif held.claim:
            await self._store.end_claim(held.claim, end.reply if end.state == "completed" else None)

    async def _give_up(self, held: Held, charges: Sequence[Charge]) -> None:
        """Settles the limits and frees the key of a turn that could not be ended. At worst the key's lease runs out.

        The reservation itself is stored with the turn, and given back with it.
        """
        try:
            if charges:
                reserved = {(one.subject, one.kind): one.amount for one in held.reserved}
                await self._store.settle(
                    [replace(one, amount=one.amount + reserved.get((one.subject, one.kind), 0)) for one in charges]
                )
            if held.claim is not None:
                await self._store.end_claim(held.claim, None)
        except ParleyError as error:
            _log.info("not given up", error=error.message, cause=error.cause)

    async def _renew(self) -> None:
        turns = [held.turn for held in self._running if held.turn]
        claims = [held.claim for held in self._running if held.claim]
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


def _keeps(request: CreateChatCompletionRequest, model: Model) -> bool:
    """Tells whether this call is a turn of a session. Raises InvalidRequest where the request contradicts itself."""
    if request.continue_final_message:
        _require_apart(request)
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


def _require_apart(request: CreateChatCompletionRequest) -> None:
    """Raises InvalidRequest where the rest of an answer, which is no turn of its own, should become one."""
    for is_asked, name in ((request.HasField("session_id"), "chatSessionId"), (request.store, "store")):
        if is_asked:
            message = f"`{name}` cannot be used with `continue_final_message`, which no session keeps; leave one out"
            raise InvalidRequest(message, param=name)
