"""Admission of calls under the limits of their key and account.

Every call is charged one request. A completion also reserves the tokens and the money that it may need, and counts as
running, all in one transaction of the store. At its end the reservation is settled with what was used: with the end of
its turn, or in a background task, so that neither the caller waits for it nor a cancellation stops it. The reservation
of a worker that crashes is returned when its lease expires.
"""

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import structlog

from parley.config import Price
from parley.core.background import PeriodicTask
from parley.core.errors import ParleyError
from parley.core.offload import offload
from parley.core.ports import Caller, Charge, LimitStore, Reservation, RunningCall, Settlement
from parley.core.ports.limits import REQUESTS
from parley.core.usage import charges, exceeded
from parley.core.usage.admission import UNLIMITED_CALL, Admission
from parley.core.usage.charges import Demand
from parley.core.usage.tokens import charged_size, estimate_tokens
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest

_LEASE_SECONDS = 10.0
_RENEW_SECONDS = 3.0

_log = structlog.get_logger()


class RateLimiter:
    """Admits calls of one worker. The store counts for all workers."""

    def __init__(
        self,
        store: LimitStore,
        renew_seconds: float = _RENEW_SECONDS,
        on_rejected: Callable[[Caller, Sequence[Charge]], None] = lambda *_: None,
    ) -> None:
        """Creates a limiter.

        Args:
            store: Counts.
            renew_seconds: The pause between two renewals of the leases of running calls.
            on_rejected: Receives the caller of a rejected completion, and the charges that exceeded limits.
        """
        self._store = store
        self._on_rejected = on_rejected
        self._running: set[str] = set()
        self._writing: set[asyncio.Task[Any]] = set()
        self._renewal = PeriodicTask("renewal of running calls", self._renew, renew_seconds)

    async def admit(  # noqa: PLR0913 - what a completion may use
        self,
        request: CreateChatCompletionRequest,
        caller: Caller,
        *,
        instructions: str = "",
        max_tokens: int = 0,
        history: int = 0,
        may_repeat: bool = False,
        price: Price | None = None,
    ) -> Admission:
        """Reserves what a completion may use.

        Args:
            request: The request.
            caller: The account and the key to charge.
            instructions: The model's own instructions, which are part of the prompt.
            max_tokens: The most tokens that the answer can have; 0 for no limit.
            history: The estimated tokens of the session.
            may_repeat: Whether the request may contain the messages of the session.
            price: The highest prices of the targets; None if they have none.

        Returns:
            The admission, which is a rejection if the limits are exhausted.

        Raises:
            InvalidRequest: The request needs more than the limits ever allow.
            StoreUnavailable: The store cannot be reached.
        """
        if not charges.is_limited(caller):
            return UNLIMITED_CALL
        prompt = estimate_tokens(len(instructions.encode()) + await offload(_prompt_size, request))
        if may_repeat:
            history = max(0, history - prompt)
        demand = Demand(prompt, history, max_tokens, max(1, request.n), price)
        wanted = charges.completion_charges(caller, demand)
        exceeded.require_possible(request, wanted, demand)
        if all(charge.kind == REQUESTS for charge in wanted):
            return await self._request(wanted)
        call = RunningCall(secrets.token_hex(12), f"key:{caller.key_id}", f"account:{caller.account}")
        reservation = await self._reserve(wanted, call)
        if not reservation.granted:
            self._on_rejected(caller, [charge for charge, _ in exceeded.exhausted(wanted, reservation)])
            return _rejected(wanted, reservation)
        self._running.add(call.id)
        self._renewal.start()
        admission = Admission(exceeded.statuses(wanted, reservation))
        return admission.hold(call.id, wanted, prompt, self._end, self._running.discard)

    async def admit_request(self, caller: Caller) -> Admission:
        """Charges one request to a call that is not a completion, or that failed before its admission.

        Raises:
            StoreUnavailable: The store cannot be reached.
        """
        return await self._request(charges.request_charges(caller)) if charges.is_limited(caller) else UNLIMITED_CALL

    def charge_request(self, caller: Caller) -> None:
        """Charges one request in a task, for a call that was cancelled before its admission."""
        if charges.is_limited(caller):
            self._start(self._logged(self._request(charges.request_charges(caller)), "request not charged"))

    async def close(self) -> None:
        """Waits for writes in progress."""
        while self._writing:
            await asyncio.wait(self._writing)
        await self._renewal.stop()

    async def _request(self, wanted: Sequence[Charge]) -> Admission:
        if not wanted:
            return UNLIMITED_CALL
        reservation = await self._store.reserve(wanted)
        if reservation.granted:
            return Admission(exceeded.statuses(wanted, reservation))
        return _rejected(wanted, reservation)

    async def _reserve(self, wanted: Sequence[Charge], call: RunningCall) -> Reservation:
        """Reserves; all but the request is returned if the caller cancels meanwhile."""
        task = asyncio.create_task(self._store.reserve(wanted, call, _LEASE_SECONDS))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(lambda done: self._return(done, wanted, call))
            raise

    def _return(self, task: asyncio.Task[Reservation], wanted: Sequence[Charge], call: RunningCall) -> None:
        if not task.cancelled() and task.exception() is None and task.result().granted:
            admission = Admission().hold(call.id, wanted, 0, self._end, self._running.discard)
            admission.settle()

    def _end(self, settlement: Settlement) -> asyncio.Task[None]:
        return self._start(self._logged(self._store.settle(settlement), "limits not settled"))

    def _start(self, write: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(write)
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)
        return task

    async def _logged(self, write: Coroutine[Any, Any, Any], what: str) -> None:
        try:
            await write
        except ParleyError as error:
            _log.warning(what, error=error.message, cause=error.cause)

    async def _renew(self) -> None:
        if self._running:
            await self._store.renew_calls(sorted(self._running), _LEASE_SECONDS)


def _rejected(wanted: Sequence[Charge], reservation: Reservation) -> Admission:
    return Admission(exceeded.statuses(wanted, reservation), exceeded.rejection(wanted, reservation))


def _prompt_size(request: CreateChatCompletionRequest) -> int:
    """Returns the size of a request's prompt, in bytes of text and of serialized tools, schemas and vendors' fields."""
    offered = sum(part.ByteSize() for part in (*request.tools, *request.functions))
    offered += request.response_format.ByteSize() + request.extra_body.ByteSize()
    return offered + sum(charged_size(message) for message in request.messages)
