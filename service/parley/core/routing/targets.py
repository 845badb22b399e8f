"""The live state of a target: its backend, its health and its slots."""

import asyncio
import time

from parley.config import Model, Price, Target
from parley.core.errors import ParleyError
from parley.core.ports import Backend
from parley.core.routing.breaker import Breaker, Clock
from parley.core.routing.failure_policy import HealthEffect
from parley.core.routing.first_token_latency import FirstTokenLatency
from parley.core.routing.probe_schedule import InMemoryState, ProbeSchedule, SharedState
from parley.core.routing.suspect_failures import SuspectFailures

_UNSTREAMED_SECONDS = 300.0


class LiveTarget:
    """A backend and a model name at it, shared by all models of this worker that name it.

    Args:
        target: The configuration of the target.
        backend: The backend.
        price: What tokens cost; None if that is not configured.
        clock: Returns the time in seconds.
        state: The probe times that workers share; by default the target has its own.

    Attributes:
        healthy: The result of the latest health check; true without health checks.
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
        """Returns whether a call of this account would be admitted now, if a slot is free."""
        return self.healthy and self.breaker.admits() and not self.suspect_failures.remaining_delay(account)

    def try_acquire_permit(self, account: str = "") -> int | None:
        """Admits a call of this account and returns its breaker permit; None if the call is rejected."""
        return (
            self.breaker.try_acquire_permit()
            if self.healthy and self.suspect_failures.try_acquire_permit(account)
            else None
        )

    def is_only_slow(self, account: str = "") -> bool:
        """Returns whether calls of this account are rejected only because the target is slow."""
        return self.healthy and self.breaker.only_late and not self.suspect_failures.remaining_delay(account)

    def remaining_delay(self, account: str = "") -> float:
        """Returns after how many seconds a call of this account may be admitted; 0 for now."""
        return max(self.breaker.remaining_delay(), self.suspect_failures.remaining_delay(account))

    @property
    def can_stream(self) -> bool:
        """Whether the target has not rejected streaming recently, so that answers may be requested as streams."""
        return self._clock() >= self._streams_retried_at

    def record_streams_unsupported(self) -> None:
        """Records that the target cannot stream, which holds for some minutes."""
        if self.can_stream:
            self._streams_retried_at = self._clock() + _UNSTREAMED_SECONDS

    def cause(self, account: str = "") -> type[ParleyError] | None:
        """Returns the type of failure because of which calls of this account are rejected; None if it is unknown."""
        return self.breaker.cause() or self.suspect_failures.cause(account)

    def record_failed_attempt(self, effect: HealthEffect, permit: int, account: str, cause: type[ParleyError]) -> None:
        """Records what a failed attempt of this account shows about the health of the target."""
        counts = effect is HealthEffect.SUSPECT and self.suspect_failures.record_failure(account, cause)
        if counts or effect is HealthEffect.FAILURE:
            self.breaker.record_failure(permit, cause)
        elif effect is HealthEffect.SUCCESS:
            self.breaker.record_success(permit)
        else:
            self.breaker.release(permit)

    async def acquire_slot(self, seconds: float) -> bool:
        """Acquires a slot, waiting up to `seconds`. Returns False if none was free or the queue is full."""
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
        """Releases a slot."""
        if self._slots is not None:
            self._slots.release()


class Candidate:
    """A target that may answer a call, with the model that names it: the requested one or a fallback."""

    __slots__ = ("model", "target", "weight")

    def __init__(self, model: Model, target: Target, live: LiveTarget) -> None:
        self.model = model
        self.target = live
        self.weight = target.weight
