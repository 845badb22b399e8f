"""The circuit breaker of one target: keeps calls away from it while it fails.

    closed ── 5 failures in a row, or half of 20 within 30 s ──→ open, for 10 s
    open ── the time is over ──→ half open: one call is let through, the probe
    half open ── the probe succeeds ──→ closed;  the probe fails ──→ open, for longer, up to 15 s

Each worker counts by itself, but they share the pause: one of them probes, and closes the breakers of all.

A call enters with a permit, and says with it how it ended. What a permit says that was given before the last change of
state is not heard: it tells of another time.

Apart from these states, a target may be held: it has asked not to be called before some time (`Retry-After`).
"""

import time
from collections import deque
from collections.abc import Callable

from parley.core.errors import ParleyError, UpstreamRateLimited, UpstreamTimeout
from parley.core.routing.probe_schedule import InMemoryState, ProbeSchedule

Clock = Callable[[], float]
"""Tells the time in seconds, from any beginning."""

IGNORED_PERMIT = -1
"""A permit whose results are ignored."""

CONSECUTIVE_FAILURES = 5
WINDOW = 20
WINDOW_SECONDS = 30.0


class Breaker:
    """One target's. Times are those of `clock`, which all who share the pause have in common.

    `only_late` tells that it is open because calls wait longer than usual, and for no other reason: a call that
    has nowhere else to go may be made all the same.
    """

    def __init__(self, clock: Clock = time.monotonic, schedule: ProbeSchedule | None = None) -> None:
        self._clock = clock
        self._schedule = schedule or ProbeSchedule(InMemoryState())
        self._permit = 0  # of the present state
        self._half_open = False
        self._opened_at: float | None = None  # None: closed
        self._cause: type[ParleyError] | None = None  # the kind of the latest failure
        self._close()

    @property
    def is_closed(self) -> bool:
        """Tells whether every call is let through."""
        if self._opened_at is not None and self._schedule.recovered_since(self._opened_at):
            self._close()
        return self._opened_at is None

    def admits(self) -> bool:
        """Tells whether a call would be let through now."""
        now = self._clock()
        if self._schedule.hold_remaining(now)[0]:
            return False
        return self.is_closed or (not self._half_open and now >= self._schedule.due())

    def remaining_delay(self) -> float:
        """Returns in how many seconds a call may be let through; 0 for now."""
        now = self._clock()
        held, _ = self._schedule.hold_remaining(now)
        return held if self.is_closed else max(held, self._schedule.due() - now)

    def cause(self) -> type[ParleyError] | None:
        """Returns the kind of failure that keeps calls away; None where none does, or it is not known."""
        if self._schedule.hold_remaining(self._clock())[1]:
            return UpstreamRateLimited
        return None if self.is_closed else self._cause

    def hold(self, seconds: float, cause: type[ParleyError]) -> None:
        """Keeps all calls away for so many seconds, because the target asked for it with this kind of failure."""
        self._schedule.hold(self._clock(), seconds, limited=issubclass(cause, UpstreamRateLimited))

    def try_acquire_permit(self) -> int | None:
        """Lets a call through and returns its permit; None where it must go elsewhere."""
        if self._schedule.hold_remaining(self._clock())[0]:
            return None
        if self.is_closed:
            return self._permit
        if self._half_open or not self._schedule.try_acquire_probe(self._clock()):
            return None
        self._half_open = True
        self._permit += 1
        return self._permit

    def record_first_token(self, permit: int) -> int:
        """Notes that an answer has begun: a probe has succeeded then. Returns the permit to say with how it ends."""
        if self._half_open and permit == self._permit:
            self._recover()
            return self._permit
        return permit

    def record_success(self, permit: int) -> None:
        """Notes that the target answered, be it that the request is wrong."""
        if permit != self._permit:
            return
        if self._half_open:
            self._recover()
        else:
            self._consecutive_failures = self._late_calls = 0
            self._record(failed=False)

    def record_failure(self, permit: int, cause: type[ParleyError] | None = None) -> None:
        """Notes a failure that counts against the target; its kind is kept as the cause while the breaker is open."""
        if permit != self._permit:
            return
        self._cause = cause
        self.only_late = False
        if self._half_open:
            self._schedule.record_failure(self._clock())
            self._open()
            return
        self._consecutive_failures += 1
        self._record(failed=True)
        if self._consecutive_failures >= CONSECUTIVE_FAILURES or self._failure_rate_exceeded():
            self._schedule.open(self._clock())
            self._open()

    def record_late(self, permit: int) -> None:
        """Notes that a call waits longer than usual, which counts as a failure until its first token comes."""
        if permit != self._permit:
            return
        self._late_calls += 1
        consecutive = self._consecutive_failures + 1
        before = self.only_late if self._half_open else self._late_calls >= consecutive
        self.record_failure(permit, UpstreamTimeout)
        self.only_late = before and self._opened_at is not None

    def clear_late(self, permit: int) -> None:
        """Notes that the first token of a suspected call has come: the suspicion was wrong, or may be over."""
        if permit == self._permit:
            self._consecutive_failures = self._late_calls = 0
            last = max((place for place, (_, failed) in enumerate(self._results) if failed), default=None)
            if last is not None:
                self._results[last] = (self._results[last][0], False)
        elif self.only_late:
            self.probe_now()

    def release(self, permit: int) -> None:
        """Notes that a call ended without a word about the target, for example because its caller left."""
        if self._half_open and permit == self._permit:
            self._schedule.reschedule(self._clock())
            self._open()

    def probe_now(self) -> None:
        """Lets a probe be made at once: something else has found the target well."""
        if not self.is_closed and not self._half_open:
            self._schedule.probe_now(self._clock())

    def _record(self, *, failed: bool) -> None:
        self._results.append((self._clock(), failed))

    def _failure_rate_exceeded(self) -> bool:
        full = len(self._results) == WINDOW and self._results[0][0] >= self._clock() - WINDOW_SECONDS
        return full and 2 * sum(failed for _, failed in self._results) >= WINDOW

    def _open(self) -> None:
        self._opened_at = self._clock()
        self._half_open = False
        self._permit += 1

    def _recover(self) -> None:
        self._schedule.recover(self._clock())
        self._close()

    def _close(self) -> None:
        self._opened_at = None
        self._cause = None
        self._half_open = False
        self._permit += 1
        self._consecutive_failures = self._late_calls = 0
        self.only_late = False
        self._results: deque[tuple[float, bool]] = deque(maxlen=WINDOW)
