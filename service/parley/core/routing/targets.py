"""The live state of a target: its backend, its health and its slots. A target of a wildcard has one for each name."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from parley.config import WILDCARD, Accepts, Metadata, Model, Price, Target, target_name
from parley.core.messages.text_completion import TextCompletion
from parley.core.ports import Backend, UpstreamCall
from parley.core.ports.parameters import TargetParameters
from parley.core.routing.breaker import Clock
from parley.core.routing.call_origin import PLAIN_ORIGIN, CallOrigin
from parley.core.routing.first_token_latency import FirstTokenLatency
from parley.core.routing.probe_schedule import InMemoryState, ProbeTimes, SharedState
from parley.core.routing.target_breakers import Permit, TargetBreakers
from parley.v1.chat_completions_pb2 import ChatCompletion

_UNSTREAMED_SECONDS = 300.0
MAX_NAMES = 256
"""The number of names of a wildcard whose state is kept; beyond it the oldest one is dropped."""

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
        name: The name in the log.
        label: The name in the configuration, which metrics have. It differs from `name` for a name of a wildcard.
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
        self.name = self.label = target.name
        self.backend_name = target.backend
        self.model = target.model
        self.backend = backend
        # Backends that use HTTP have it: an answer that is one text is no message yet.
        self.answer: Answer = getattr(backend, "complete_compact", backend.complete)
        self.price = price
        self.healthy = True
        self.is_opened = False
        self._state = state or InMemoryState()
        self.breakers = TargetBreakers(clock, self._state)
        self._names: dict[str, NamedTarget] = {}
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

    @property
    def shown_breakers(self) -> TargetBreakers:
        """The breakers that administrators see: of a wildcard those of a name that fails, if there is one."""
        return next((one.breakers for one in self._names.values() if not one.breakers.shared.is_closed), self.breakers)

    def named(self, rest: str, price_of: Callable[[str], Price | None]) -> "LiveTarget":
        """Returns the target under a name of a wildcard; this target if its model has no `*`.

        Args:
            rest: What a request has named in place of the `*`.
            price_of: Returns the price of a target by its name.
        """
        if WILDCARD not in self.model:
            return self
        model = self.model.replace(WILDCARD, rest)
        found = self._names.pop(model, None) or NamedTarget(self, model, price_of)
        self._names[model] = found  # the latest one is the last
        if len(self._names) > MAX_NAMES:
            del self._names[next(iter(self._names))]
        return found

    def set_health(self, *, healthy: bool) -> None:
        """Applies the result of a health check."""
        for target in (self, *self._names.values()):
            target.healthy = healthy
            if healthy:
                target.breakers.probe_now()

    def set_opened(self, *, opened: bool) -> None:
        """Applies that an administrator has opened the breaker, or no longer does."""
        self.is_opened = opened
        for target in self._names.values():
            target.is_opened = opened

    def reset(self) -> None:
        """Closes all breakers."""
        for target in (self, *self._names.values()):
            target.breakers.reset()

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


class NamedTarget(LiveTarget):
    """A target of a wildcard under one name. It has breakers of its own, and the slots of all names."""

    def __init__(self, wildcard: LiveTarget, model: str, price_of: Callable[[str], Price | None]) -> None:
        name = target_name(wildcard.backend_name, model)
        target = Target(backend=wildcard.backend_name, model=model, weight=wildcard.weight)
        state = _NameState(wildcard._state, model)  # noqa: SLF001 - a part of the same target
        super().__init__(target, wildcard.backend, price_of(name) or wildcard.price, wildcard._clock, state)  # noqa: SLF001
        self.label = wildcard.label
        self.healthy, self.is_opened = wildcard.healthy, wildcard.is_opened
        self.max_calls, self.has_no_slots = wildcard.max_calls, wildcard.has_no_slots
        self._wildcard = wildcard

    async def acquire_slot(self, seconds: float) -> bool:
        """See `LiveTarget`."""
        return await self._wildcard.acquire_slot(seconds)

    def release_slot(self) -> None:
        """See `LiveTarget`."""
        self._wildcard.release_slot()


class _NameState:
    """The part of a target's shared state that belongs to one name of a wildcard."""

    def __init__(self, state: SharedState, model: str) -> None:
        self._state = state
        self._model = model
        self._own = state.part(f"model {model}")

    def read(self) -> ProbeTimes:
        return self._own.read()

    def update(self, change: Callable[[ProbeTimes], ProbeTimes]) -> ProbeTimes:
        return self._own.update(change)

    def part(self, name: str) -> SharedState:
        return self._state.part(f"model {self._model} {name}")


class Candidate:
    """A target that may answer a call, with the model that names it: the requested one or a fallback.

    Attributes:
        model: The model.
        target: The target.
        weight: The weight, configured or set by an administrator.
        parameters: What the target and its backend change in parameters; None for nothing.
        accepts: The most of each that the target accepts.
        metadata: What is known of the model, at this target.
        is_selective: Whether the target accepts some requests only.
        is_bounded: Whether some requests are too long, by estimate.
        is_known_name: Whether the name of a wildcard is one that the configuration or the backend's own list has.
    """

    __slots__ = (
        "_configured",
        "accepts",
        "is_bounded",
        "is_known_name",
        "is_selective",
        "metadata",
        "model",
        "parameters",
        "target",
        "weight",
    )

    def __init__(self, model: Model, target: Target, live: LiveTarget) -> None:
        self._configured = target
        self.model = model
        self.target = live
        self.weight = target.weight
        self.is_known_name = False
        self.parameters = TargetParameters.of(target)
        self.accepts: Accepts = target.accepts
        self.describe(model.metadata)

    def describe(self, known: Metadata) -> None:
        """Sets what is known of the model."""
        self.metadata = known
        self.is_selective = bool(known.modalities) or known.tools is False or self.accepts != _ACCEPTS_ALL
        self.is_bounded = bool(known.context_length or known.max_output)

    def named(self, model: Model, price_of: Callable[[str], Price | None]) -> "Candidate":
        """Returns this candidate of a wildcard under the id that a request has named."""
        found = Candidate(model, self._configured, self.target.named(model.rest, price_of))
        found.weight = self.weight
        return found


_ACCEPTS_ALL = Accepts()
