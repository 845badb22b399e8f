"""Buckets in memory, and calls that they admit."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from google.protobuf.json_format import ParseDict

from parley.config import Limits
from parley.core.errors import StoreUnavailable
from parley.core.ports import Caller, Charge, Reservation, RunningCall, Settlement
from parley.core.usage.limits import RateLimiter
from parley.stores import buckets
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest

ADA = Caller(
    "ada",
    "key_1",
    key_limits=Limits(requests_per_minute=60, tokens_per_minute=1200),
    account_limits=Limits(requests_per_minute=90, tokens_per_minute=1000),
)


class MemoryStore:
    """Buckets in memory. While `gate` is not set, calls wait; with `is_unavailable` they fail."""

    def __init__(self) -> None:
        self.now = 0.0
        self.rows: dict[tuple[str, str], tuple[float, float]] = {}
        self.is_unavailable = False
        self.renewed: list[list[str]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    def used(self, charge: Charge) -> float:
        used, updated = self.rows.get((charge.subject, charge.kind), (0.0, 0.0))
        return buckets.used_now(charge, used, updated, self.now)

    async def reserve(
        self, charges: Sequence[Charge], call: RunningCall | None = None, lease_seconds: float = 0.0
    ) -> Reservation:
        await self._answer()
        used = [self.used(charge) for charge in charges]
        reservation = buckets.reserved(charges, used, self.now)
        for charge, before in zip(charges, used, strict=True):
            if reservation.granted:
                self.rows[charge.subject, charge.kind] = (before + charge.amount, self.now)
        return reservation

    async def settle(self, settlement: Settlement) -> None:
        await self._answer()
        for charge in settlement.charges:
            used = max(0.0, self.used(charge) + buckets.correction(charge, started=self.now, now=self.now))
            self.rows[charge.subject, charge.kind] = (used, self.now)

    async def renew_calls(self, call_ids: Iterable[str], lease_seconds: float) -> None:
        await self._answer()
        self.renewed.append(list(call_ids))

    async def _answer(self) -> None:
        await self.gate.wait()
        if self.is_unavailable:
            raise StoreUnavailable("unavailable")


def request(**fields: Any) -> CreateChatCompletionRequest:
    """Returns a request whose prompt has about ten tokens."""
    message = {"role": "user", "content": "x" * 40}
    return ParseDict({"messages": [message], **fields}, CreateChatCompletionRequest())


async def admit(
    limits: RateLimiter, max_tokens: int = 1, call: CreateChatCompletionRequest | None = None, **more: Any
) -> Any:
    """Admits a call; `on_statuses` receives the limits of the caller."""
    caller, on_statuses = more.pop("caller", ADA), more.pop("on_statuses", lambda _: None)
    admission = await limits.admit(call or request(), caller, max_tokens=max_tokens, **more)
    on_statuses(admission.statuses)
    admission.require_granted()
    return admission


def tokens(store: MemoryStore, subject: str = "account:ada") -> float:
    """Returns the tokens that are used."""
    return store.used(Charge(subject, "tokens", 1000, 0))
