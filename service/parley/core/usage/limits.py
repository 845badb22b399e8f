"""Rate limits per minute, of requests and tokens, for keys and accounts.

A call reserves one request and the tokens that it may need from the buckets of its key and of its account. At its end
the reservation is settled with the tokens used, in a background task, so that neither the caller waits for it nor a
cancellation stops it.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

import structlog

from parley.config import UNLIMITED, Limits
from parley.core.errors import InvalidRequest, ParleyError, RateLimited
from parley.core.offload import offload
from parley.core.ports import Caller, Charge, LimitStore, Reservation
from parley.core.usage.tokens import charged_size, estimate_tokens
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk, CreateChatCompletionRequest
from parley.v1.message_pb2 import Message, Usage

REQUESTS, TOKENS = "requests", "tokens"
_ROUNDING = 1e-6

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RateLimitStatus:
    """The state of a limit. If both the key and the account are limited, the one with less remaining.

    Attributes:
        kind: `requests` or `tokens`.
        limit: The limit per minute.
        remaining: Requests or tokens that are available now.
        reset: Seconds until the full limit is available again.
    """

    kind: str
    limit: int
    remaining: int
    reset: float


class Admission:
    """The result of admitting one call: its caller's limits, and what is reserved for it.

    Leaving the `with` block settles the reservation with what the call has used.

    Args:
        charges: The reserved charges; empty for a rejected call.
        prompt: The estimated tokens of the request's prompt.
        settle: Writes corrections of the reserved charges.
        statuses: The caller's limits after the reservation.
        rejection: The error of a rejected call; None for an admitted call.
    """

    def __init__(
        self,
        charges: Sequence[Charge],
        prompt: int,
        settle: Callable[[Sequence[Charge]], None],
        statuses: Sequence[RateLimitStatus] = (),
        rejection: RateLimited | None = None,
    ) -> None:
        self.statuses = statuses
        self._rejection = rejection
        self._charges = [charge for charge in charges if charge.kind == TOKENS]
        self._prompt = prompt
        self._settle = settle
        self._history: Sequence[Message] = ()
        self._answer_size: int | None = None
        self._usage: Usage | None = None

    def require_granted(self) -> None:
        """Raises RateLimited for a rejected call."""
        if self._rejection is not None:
            raise self._rejection

    @property
    def reserved(self) -> Sequence[Charge]:
        """The charges of tokens that are not settled yet."""
        return self._charges

    def add_history(self, history: Sequence[Message]) -> None:
        """Records messages of the session that the prompt has besides those of the request."""
        if self._charges:
            self._history = history

    def record_answer(self, answer: ChatCompletion | ChatCompletionChunk) -> None:
        """Records an answer, or a chunk of one."""
        if not self._charges:
            return
        self._answer_size = self._answer_size or 0
        if answer.HasField("usage"):
            self._usage, self._answer_size = answer.usage, 0
            return
        for choice in answer.choices:
            self._answer_size += charged_size(choice.message if isinstance(answer, ChatCompletion) else choice.delta)  # type: ignore[union-attr]

    def used(self) -> int:
        """Returns the tokens to charge: as the backend reported, else an estimate; 0 without an answer.

        Only the answer that the caller received counts, with the usage in it. The receipt has the usage of every
        attempt, also of a call that failed. Some backends report the prompt first, so output since the latest report
        is estimated and added.
        """
        if self._answer_size is None:
            return 0
        if self._usage is not None:
            reported = self._usage.total_tokens or self._usage.prompt_tokens + self._usage.completion_tokens
            return reported + estimate_tokens(self._answer_size)
        history = sum(charged_size(message) for message in self._history)
        return self._prompt + estimate_tokens(self._answer_size + history)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.settle()

    def settle(self) -> None:
        """Settles the reservation, unless that is done already."""
        if self._charges:
            self._settle(self.take_charges())

    def take_charges(self) -> Sequence[Charge]:
        """Returns the corrections that settle the reservation, to be written with the end of a turn.

        A reservation is settled once: later calls return nothing.
        """
        charges, self._charges = self._charges, []
        used = self.used() if charges else 0
        return [replace(charge, amount=used - charge.amount) for charge in charges]


UNLIMITED_CALL = Admission((), 0, lambda _: None)
"""The admission of calls that have no limits."""


class RateLimiter:
    """Admits calls of one worker. The store counts for all workers."""

    def __init__(self, store: LimitStore) -> None:
        self._store = store
        self._settling: set[asyncio.Task[None]] = set()

    async def admit(
        self,
        request: CreateChatCompletionRequest,
        caller: Caller,
        instructions: str,
        max_tokens: int,
    ) -> Admission:
        """Reserves one request, and tokens for the prompt and the answer.

        Args:
            request: The request.
            caller: The account and the key to charge.
            instructions: The model's own instructions, which are part of the prompt.
            max_tokens: The most tokens that the answer can have; 0 for no limit.

        Returns:
            The admission, which is a rejection if the limits are exhausted.

        Raises:
            InvalidRequest: The request needs more tokens than the limits ever allow.
            StoreUnavailable: The store cannot be reached.
        """
        if not is_limited(caller):
            return UNLIMITED_CALL
        prompt = estimate_tokens(len(instructions.encode()) + await offload(_prompt_size, request))
        amounts = {REQUESTS: 1, TOKENS: prompt + max_tokens}
        charges = [replace(bucket, amount=amounts[bucket.kind]) for bucket in _buckets(caller)]
        _require_possible(request, charges, prompt)
        reservation = await self._reserve(charges)
        statuses = _statuses(charges, reservation.remaining)
        if reservation.granted:
            return Admission(charges, prompt, self._settle, statuses)
        return Admission((), prompt, self._settle, statuses, _rate_limited_error(charges, reservation.remaining))

    async def statuses(self, caller: Caller) -> Sequence[RateLimitStatus]:
        """Returns the limits of a caller, at no charge. Raises StoreUnavailable."""
        if not is_limited(caller):
            return ()
        buckets = _buckets(caller)
        return _statuses(buckets, (await self._store.reserve(buckets)).remaining)

    async def close(self) -> None:
        """Waits for settlements in progress."""
        if self._settling:
            await asyncio.wait(self._settling)

    async def _reserve(self, charges: Sequence[Charge]) -> Reservation:
        """Reserves; the tokens are refunded if the caller cancels meanwhile."""
        task = asyncio.create_task(self._store.reserve(charges))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(lambda done: self._refund(done, charges))
            raise

    def _refund(self, task: asyncio.Task[Reservation], charges: Sequence[Charge]) -> None:
        if not task.cancelled() and task.exception() is None and task.result().granted:
            self._settle([replace(charge, amount=-charge.amount) for charge in charges if charge.kind == TOKENS])

    def _settle(self, corrections: Sequence[Charge]) -> None:
        if any(correction.amount for correction in corrections):
            task = asyncio.create_task(self._write(corrections))
            self._settling.add(task)
            task.add_done_callback(self._settling.discard)

    async def _write(self, corrections: Sequence[Charge]) -> None:
        try:
            await self._store.settle(corrections)
        except ParleyError as error:
            _log.warning("limits not settled", subject=corrections[0].subject, error=error.message, cause=error.cause)


def is_limited(caller: Caller) -> bool:
    """Returns whether the key or the account of a caller has a limit."""
    return caller.key_limits is not UNLIMITED or caller.account_limits is not UNLIMITED


def _buckets(caller: Caller) -> list[Charge]:
    """Returns empty charges on the buckets of a caller."""
    return [
        *_subject_buckets(f"key:{caller.key_id}", caller.key_limits),
        *_subject_buckets(f"account:{caller.account}", caller.account_limits),
    ]


def _subject_buckets(subject: str, limits: Limits) -> list[Charge]:
    per_minute = ((REQUESTS, limits.requests_per_minute), (TOKENS, limits.tokens_per_minute))
    return [Charge(subject, kind, amount, 0) for kind, amount in per_minute if amount is not None]


def _require_possible(request: CreateChatCompletionRequest, charges: Sequence[Charge], prompt: int) -> None:
    """Raises InvalidRequest if a request needs more tokens than the limit of a minute: waiting would not help."""
    of_tokens = [charge for charge in charges if charge.kind == TOKENS]
    tightest = min(of_tokens, key=lambda charge: charge.per_minute, default=None)
    if tightest is None or tightest.amount <= tightest.per_minute:
        return
    limit = f"more than the {tightest.per_minute} tokens a minute of this {_subject_name(tightest)}"
    if prompt > tightest.per_minute:
        raise InvalidRequest(f"`messages` are too long: about {prompt} tokens, {limit}; send less", param="messages")
    name = "max_completion_tokens" if request.HasField("max_completion_tokens") else "max_tokens"
    needed = f"with a prompt of about {prompt}, {tightest.amount} tokens may be needed"
    raise InvalidRequest(f"`{name}` is too large: {needed}, {limit}; ask for less", param=name)


def _rate_limited_error(charges: Sequence[Charge], remaining_by_bucket: Sequence[float]) -> RateLimited:
    """Returns the error that names the limit with the longest wait."""
    waits = [
        ((charge.amount - remaining) * 60 / charge.per_minute, charge, remaining)
        for charge, remaining in zip(charges, remaining_by_bucket, strict=True)
    ]
    wait, charge, remaining = max(waits, key=lambda each: each[0])
    seconds = max(1, math.ceil(round(wait, 9)))
    counted = _whole_units(remaining)
    if charge.kind == REQUESTS:
        what = f"make {charge.per_minute} requests a minute, and {counted} are left"
    else:
        what = f"use {charge.per_minute} tokens a minute: {counted} are left, this request may need {charge.amount}"
    return RateLimited(f"This {_subject_name(charge)} may {what}; try again in {seconds} s", seconds)


def _statuses(charges: Sequence[Charge], remaining_by_bucket: Sequence[float]) -> list[RateLimitStatus]:
    statuses = []
    for kind in (REQUESTS, TOKENS):
        pairs = zip(charges, remaining_by_bucket, strict=True)
        found = [(remaining, charge.per_minute) for charge, remaining in pairs if charge.kind == kind]
        if found:
            remaining, limit = min(found)
            statuses.append(RateLimitStatus(kind, limit, _whole_units(remaining), (limit - remaining) * 60 / limit))
    return statuses


def _subject_name(charge: Charge) -> str:
    return charge.subject.partition(":")[0]


def _whole_units(remaining: float) -> int:
    """Returns a remainder rounded down, at least 0."""
    return max(0, math.floor(remaining + _ROUNDING))


def _prompt_size(request: CreateChatCompletionRequest) -> int:
    """Returns the size of a request's prompt, in bytes of text and of serialized tools."""
    offered = sum(tool.ByteSize() for tool in request.tools) + sum(
        function.ByteSize() for function in request.functions
    )
    return offered + sum(charged_size(message) for message in request.messages)
