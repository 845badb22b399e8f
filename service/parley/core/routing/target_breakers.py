"""The circuit breakers of one target: one that all calls share, and one for each origin that sees it fail.

The shared breaker counts failures that no request can cause, because no connection was made, and failures that several
accounts have seen. Every other failure may be the request's own fault, whatever its status: it counts in the breaker of
its origin, the account together with the names of the request's parameters (`call_origin`).
"""

from collections.abc import Iterator
from typing import NamedTuple

from parley.core.errors import ParleyError, UpstreamRejected
from parley.core.routing.breaker import IGNORED_PERMIT, INITIAL_PERMIT, Breaker, Clock
from parley.core.routing.call_origin import CallOrigin
from parley.core.routing.failure_policy import HealthEffect
from parley.core.routing.failure_witnesses import FailureWitnesses
from parley.core.routing.probe_schedule import InMemoryState, ProbeSchedule, SharedState

MAX_ORIGINS = 256
"""The number of origins with breakers of their own; beyond it the oldest breaker is dropped."""


class Permit(NamedTuple):
    """The permits of one call.

    Attributes:
        shared: The permit of the shared breaker.
        own: The permit of the origin's breaker.
    """

    shared: int
    own: int = INITIAL_PERMIT


IGNORED = Permit(IGNORED_PERMIT, IGNORED_PERMIT)
"""A permit whose results are ignored."""


class TargetBreakers:
    """The breakers of one target.

    Args:
        clock: Returns the time in seconds.
        state: The probe times that the workers of the machine share.

    Attributes:
        shared: The breaker that all calls share.
    """

    def __init__(self, clock: Clock, state: SharedState | None = None) -> None:
        self._state = state or InMemoryState()
        self.shared = Breaker(clock, ProbeSchedule(self._state))
        self._clock = clock
        self._own: dict[tuple[str, frozenset[str]], Breaker] = {}
        self._witnesses = FailureWitnesses(clock)
        self._latest_permit = Permit(INITIAL_PERMIT)  # most calls share one, until the breaker changes its state

    @property
    def open_origins(self) -> int:
        """The number of origins whose own breaker is not closed."""
        return sum(not breaker.is_closed for breaker in self._own.values())

    def reset(self) -> None:
        """Closes all breakers and ends all holds, as an administrator has requested."""
        for breaker in (self.shared, *self._own.values()):
            breaker.reset()

    def is_closed(self, origin: CallOrigin) -> bool:
        """Returns whether every call of this origin is admitted, apart from a hold."""
        return all(breaker.is_closed for breaker in self._breakers(origin))

    def is_only_slow(self, origin: CallOrigin) -> bool:
        """Returns whether calls of this origin are rejected only because first tokens are late."""
        opened = [breaker for breaker in self._breakers(origin) if not breaker.is_closed]
        return bool(opened) and all(breaker.only_late for breaker in opened)

    def admits(self, origin: CallOrigin) -> bool:
        """Returns whether a call of this origin would be admitted now."""
        shared = self.shared
        if not (self._clock() < shared.admits_until or shared.admits()):
            return False
        own = self._find(origin) if self._own else None
        return own is None or own.admits()

    def remaining_delay(self, origin: CallOrigin) -> float:
        """Returns after how many seconds a call of this origin may be admitted; 0 for now."""
        return max(breaker.remaining_delay() for breaker in self._breakers(origin))

    def cause(self, origin: CallOrigin) -> type[ParleyError] | None:
        """Returns the type of failure because of which calls of this origin are rejected; None if it is unknown."""
        return next(filter(None, (breaker.cause() for breaker in self._breakers(origin))), None)

    def try_acquire_permit(self, origin: CallOrigin) -> Permit | None:
        """Admits a call and returns its permit; None if the call is rejected."""
        own = self._find(origin) if self._own else None
        if own is not None and not own.admits():
            return None
        shared = self.shared
        permit = shared.permit if self._clock() < shared.admits_until else shared.try_acquire_permit()
        if permit is None:
            return None
        if own is None:
            if permit != self._latest_permit.shared:
                self._latest_permit = Permit(permit)
            return self._latest_permit
        own_permit = own.try_acquire_permit()
        if own_permit is None:
            shared.release(permit)
            return None
        return Permit(permit, own_permit)

    def record_first_token(self, origin: CallOrigin, permit: Permit) -> Permit:
        """Records a first token, with which a probe succeeds. Returns the permit for the call's result."""
        self._witnesses.record_first_token(origin.account)
        shared, own = self.shared.record_first_token(permit.shared), self._find(origin)
        return Permit(shared, permit.own if own is None else own.record_first_token(permit.own))

    def record_success(self, origin: CallOrigin, permit: Permit) -> None:
        """Records a complete answer. Other accounts with the same parameters may probe now."""
        self._witnesses.record_success(origin.account)
        self.shared.record_success(permit.shared)
        if self._own:
            self._record_own_success(origin, permit)
            for (account, parameters), breaker in self._own.items():
                if account != origin.account and parameters == origin.parameters:
                    breaker.probe_now()

    def record_failure(
        self, origin: CallOrigin, permit: Permit, effect: HealthEffect, cause: type[ParleyError]
    ) -> None:
        """Records what a failed attempt shows about the target; `cause` is the type of its failure."""
        if effect is HealthEffect.FAILURE:
            self.shared.record_failure(permit.shared, cause)
            self._record_unreachable(origin, permit, cause)
        elif effect is HealthEffect.SUSPECT:
            self._record_suspect(origin, permit, cause)
        elif effect is HealthEffect.SUCCESS:
            self._record_reaction(origin, permit)
        else:
            self.release(origin, permit)

    def record_late(self, origin: CallOrigin, permit: Permit) -> None:
        """Records a late first token, which counts as a failure until the token arrives."""
        self._make(origin).record_late(permit.own)
        if self._witnesses.record_failure(origin.account):
            self.shared.record_late(permit.shared)

    def clear_late(self, origin: CallOrigin, permit: Permit) -> None:
        """Records the first token of a late call, or a response that shows that the target works."""
        self._witnesses.withdraw(origin.account)
        for breaker, number in zip(self._breakers(origin), permit, strict=False):
            breaker.clear_late(number)

    def release(self, origin: CallOrigin, permit: Permit) -> None:
        """Records that a call ended without a result for the target, for example because it was cancelled."""
        self.shared.release(permit.shared)
        self._release_own(origin, permit)

    def hold(self, origin: CallOrigin, seconds: float, cause: type[ParleyError]) -> None:
        """Rejects calls for `seconds`, as the target has requested with a failure of type `cause`.

        The hold applies to all calls if the request has no parameters or the failure is confirmed, else to its origin.
        """
        is_confirmed = self._witnesses.record_failure(origin.account)
        breaker = self.shared if is_confirmed or origin.is_plain else self._make(origin)
        breaker.hold(seconds, cause)

    def probe_now(self) -> None:
        """Makes the next probe due now, because a health check has succeeded."""
        for breaker in (self.shared, *self._own.values()):
            breaker.probe_now()

    def _record_suspect(self, origin: CallOrigin, permit: Permit, cause: type[ParleyError]) -> None:
        """Records a failure that the request may have caused.

        A rejected request does not count in its own breaker: the next request of the same origin may be valid.
        """
        if issubclass(cause, UpstreamRejected):
            self._release_own(origin, permit)
        else:
            self._make(origin).record_failure(permit.own, cause)
        if self._witnesses.record_failure(origin.account):
            self.shared.record_failure(permit.shared, cause)
        elif self.shared.release(permit.shared):
            self.shared.probe_now()  # the target can be reached: the call of another origin may show that it works

    def _record_unreachable(self, origin: CallOrigin, permit: Permit, cause: type[ParleyError]) -> None:
        """Records that the origin's probe has failed. Other failures count only in the shared breaker."""
        own = self._find(origin)
        if own is not None and own.is_probe(permit.own):
            own.record_failure(permit.own, cause)

    def _record_reaction(self, origin: CallOrigin, permit: Permit) -> None:
        """Records that the target works, even if it rejected the request."""
        self.shared.record_success(permit.shared)
        self._record_own_success(origin, permit)

    def _record_own_success(self, origin: CallOrigin, permit: Permit) -> None:
        own = self._find(origin)
        if own is not None:
            own.record_success(permit.own)

    def _release_own(self, origin: CallOrigin, permit: Permit) -> None:
        own = self._find(origin)
        if own is not None:
            own.release(permit.own)

    def _breakers(self, origin: CallOrigin) -> Iterator[Breaker]:
        """Yields the shared breaker, and the origin's if it has one."""
        yield self.shared
        own = self._find(origin)
        if own is not None:
            yield own

    def _find(self, origin: CallOrigin) -> Breaker | None:
        return self._own.get(origin.key) if self._own else None

    def _make(self, origin: CallOrigin) -> Breaker:
        own = self._own.get(origin.key)
        if own is None:
            if len(self._own) >= MAX_ORIGINS:
                del self._own[next(iter(self._own))]
            state = self._state.part(repr((origin.account, sorted(origin.parameters))))
            own = self._own[origin.key] = Breaker(self._clock, ProbeSchedule(state))
        return own
