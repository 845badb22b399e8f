"""The live state of a target: its backend, its health and its slots."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from parley.config import Model, Price, Target
from parley.core.messages.text_completion import TextCompletion
from parley.core.ports import Backend, UpstreamCall
from parley.core.routing.breaker import Clock
from parley.core.routing.call_origin import PLAIN_ORIGIN, CallOrigin
from parley.core.routing.first_token_latency import FirstTokenLatency
from parley.core.routing.probe_schedule import SharedState
from parley.core.routing.target_breakers import Permit, TargetBreakers
from parley.v1.chat_completions_pb2 import ChatCompletion

_UNSTREAMED_SECONDS = 300.0

Answer = Callable[[UpstreamCall], Coroutine[Any, Any, ChatCompletion | TextCompletion]]
"""Returns the complete answer; raises the errors of `Backend`."""


class LiveTarget:
    """A backend and a model name at it, shared by all models of this worker that name it.

    Args:
        target: The configuration of the target.
        backend: The backend.
        price: What tokens cost; None if that is not configured.
        clock: Returns the time in seconds.
        state: The probe times that workers share; by default the target has its own.

    Attributes:
        answer: Requests an answer without streaming.
        healthy: The result of the latest health check; true without health checks.
        is_opened: Whether an administrator has opened the breaker: no call is admitted until it is closed.
        breakers: The circuit breakers.
        has_no_slots: Whether the target admits any number of calls at a time.
        max_calls: The most calls at a time; None for no limit.
        weight: The configured weight.
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
        # Backends that use HTTP have it: an answer that is one text is no message yet.
        self.answer: Answer = getattr(backend, "complete_compact", backend.complete)
        self.price = price
        self.healthy = True
        self.is_opened = False
        self.breakers = TargetBreakers(clock, state)
        self.first_token_latency = FirstTokenLatency()
        self._clock = clock
        self._streams_retried_at = float("-inf")
        self._max_queued = target.max_queued
        self.max_calls = target.max_concurrent
        self.weight = target.weight
        self._slots = asyncio.Semaphore(target.max_concurrent) if target.max_concurrent else None
        self.has_no_slots = self._slots is None
        self._queued = 0

    def admits(self, origin: CallOrigin = PLAIN_ORIGIN) -> bool:
        """Returns whether a call of this origin would be admitted now, if a slot is free."""
        return self.healthy and not self.is_opened and self.breakers.admits(origin)

    def try_acquire_permit(self, origin: CallOrigin) -> Permit | None:
        """Admits a call of this origin and returns its permit; None if the call is rejected."""
        return self.breakers.try_acquire_permit(origin) if self.healthy and not self.is_opened else None

    def is_only_slow(self, origin: CallOrigin) -> bool:
        """Returns whether calls of this origin are rejected only because the target is slow."""
        return self.healthy and not self.is_opened and self.breakers.is_only_slow(origin)

    @property
    def slots_used(self) -> int:
        """The number of slots in use; 0 without slots."""
        return self.max_calls - self._slots._value if self._slots and self.max_calls else 0  # noqa: SLF001 - it has no accessor

    @property
    def queued(self) -> int:
        """The number of calls that wait for a slot."""
        return self._queued

    @property
    def can_stream(self) -> bool:
        """Whether the target has not rejected streaming recently, so that answers may be requested as streams."""
        return self._clock() >= self._streams_retried_at

    def record_streams_unsupported(self) -> None:
        """Records that the target cannot stream, which holds for some minutes."""
        if self.can_stream:
            self._streams_retried_at = self._clock() + _UNSTREAMED_SECONDS

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
