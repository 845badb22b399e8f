"""A target as it is now: its backend, whether it is well, and how many calls it has."""

import asyncio
import time

from parley.config import Model, Price, Target
from parley.core.errors import ParleyError
from parley.core.ports import Backend
from parley.core.routing.breaker import Breaker, Clock
from parley.core.routing.first_token_latency import FirstTokenLatency
from parley.core.routing.probe_schedule import InMemoryState, ProbeSchedule, SharedState
from parley.core.routing.suspect_failures import SuspectFailures

_UNSTREAMED_SECONDS = 300.0


class LiveTarget:
    """One backend and model of this worker, shared by all models that name it.

    `healthy` is what its health checks say; without them it stays true.
    """

    def __init__(
        self,
        target: Target,
        backend: Backend,
        price: Price | None,
        clock: Clock = time.monotonic,
        state: SharedState | None = None,
    ) -> None:
        self.name = target.name
        self.backend_name = target.backend
        self.model = target.model
        self.backend = backend
        self.price = price
        self.healthy = True
        self.breaker = Breaker(clock, ProbeSchedule(state or InMemoryState()))
        self.suspect_failures = SuspectFailures(clock)
        self.first_token_latency = FirstTokenLatency()
        self._clock = clock
        self._streams_retried_at = float("-inf")
        self._max_queued = target.max_queued
        self._slots = asyncio.Semaphore(target.max_concurrent) if target.max_concurrent else None
        self._queued = 0

    def admits(self, account: str = "") -> bool:
        """Tells whether a call of this account would be let through now, if there is a place for it."""
        return self.healthy and self.breaker.admits() and not self.suspect_failures.remaining_delay(account)

    def try_acquire_permit(self, account: str = "") -> int | None:
        """Lets a call of this account through and returns its permit; None where it must go elsewhere."""
        return (
            self.breaker.try_acquire_permit()
            if self.healthy and self.suspect_failures.try_acquire_permit(account)
            else None
        )

    def is_only_slow(self, account: str = "") -> bool:
        """Tells whether calls of this account are kept away for no other reason than that the target is slow."""
        return self.healthy and self.breaker.only_late and not self.suspect_failures.remaining_delay(account)

    def remaining_delay(self, account: str = "") -> float:
        """Returns in how many seconds a call of this account may be let through; 0 for now."""
        return max(self.breaker.remaining_delay(), self.suspect_failures.remaining_delay(account))

    @property
    def can_stream(self) -> bool:
        """Tells whether a whole answer may be asked for as a stream: not where the target refused that lately."""
        return self._clock() >= self._streams_retried_at

    def record_streams_unsupported(self) -> None:
        """Notes that the target gives whole answers only, which holds for some minutes."""
        if self.can_stream:
            self._streams_retried_at = self._clock() + _UNSTREAMED_SECONDS

    def cause(self, account: str = "") -> type[ParleyError] | None:
        """Returns the kind of failure that keeps calls of this account away; None where it is not known."""
        return self.breaker.cause() or self.suspect_failures.cause(account)

    async def acquire_slot(self, seconds: float) -> bool:
        """Takes one of the places for calls, waiting for up to so many seconds; False where there was none."""
        if self._slots is None:
            return True
        if not self._slots.locked():
            return await self._slots.acquire()
        if self._queued >= self._max_queued:
            return False
        self._queued += 1
        try:
            async with asyncio.timeout(seconds):
                return await self._slots.acquire()
        except TimeoutError:
            return False
        finally:
            self._queued -= 1

    def release_slot(self) -> None:
        """Gives a place back."""
        if self._slots is not None:
            self._slots.release()


class Candidate:
    """A target that may answer a call, for the model that names it: the one that was asked for, or a fallback."""

    __slots__ = ("model", "target", "weight")

    def __init__(self, model: Model, target: Target, live: LiveTarget) -> None:
        self.model = model
        self.target = live
        self.weight = target.weight
