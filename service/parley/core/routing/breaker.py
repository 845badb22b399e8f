"""The circuit breaker of one target: rejects calls while the target fails.

    closed ── 5 failures in a row, or half of 20 within 30 s ──→ open, for 10 s
    open ── the interval has passed ──→ half open: one call is admitted, the probe
    half open ── the probe succeeds ──→ closed;  the probe fails ──→ open, for longer, up to 15 s

Each worker counts failures by itself, but the workers share the probe schedule: one worker probes and its success
closes the breakers of all. While the breaker of one worker is open, one failure opens that of another one, unless calls
of that worker have succeeded since. Late first tokens are no such sign.

A call acquires a permit and records its result with it. The breaker ignores results for permits issued before the last
state change.

Apart from these states, a target may be on hold: with a `Retry-After`, it has requested no calls before some time.
"""

import time
from collections import deque
from collections.abc import Callable

from parley.core.errors import ParleyError, UpstreamRateLimited, UpstreamTimeout
from parley.core.routing.probe_schedule import InMemoryState, ProbeSchedule

Clock = Callable[[], float]
"""Returns a monotonic time in seconds."""

IGNORED_PERMIT = -1
"""A permit whose results are ignored."""
INITIAL_PERMIT = 1
"""The permits of a new breaker, until its first change of state."""

CONSECUTIVE_FAILURES = 5
WINDOW = 20
WINDOW_SECONDS = 30.0
_UNKNOWN = float("-inf")


class Breaker:
    """The breaker of one target.

    Args:
        clock: Returns the time in seconds; the same clock in all workers that share the schedule.
        schedule: The shared probe schedule; by default the breaker has its own.

    Attributes:
        only_late: Whether the breaker is open only because first tokens are late. A call without an alternative may
            then be made anyway.
        permit: The permit of the current state.
        admits_until: Until when every call is admitted with `permit`, unless a failure or a hold is recorded; a time in
            the past if that is not known.
    """

    def __init__(self, clock: Clock = time.monotonic, schedule: ProbeSchedule | None = None) -> None:
        self._clock = clock
        self._schedule = schedule or ProbeSchedule(InMemoryState())
        self.permit = INITIAL_PERMIT - 1
        self.admits_until = _UNKNOWN
        self._half_open = False
        self._opened_at: float | None = None  # None: closed
        self._cause: type[ParleyError] | None = None  # the type of the latest failure
        self._close()

    @property
    def is_closed(self) -> bool:
        """Whether every call is admitted, apart from a hold."""
        if self._opened_at is not None and self._schedule.recovered_since(self._opened_at):
            self._close()
        return self._opened_at is None

    @property
    def is_half_open(self) -> bool:
        """Whether the probe is running."""
        return self._half_open

    def admits(self) -> bool:
        """Returns whether a call would be admitted now."""
        now = self._clock()
        if self._schedule.is_held(now):
            return False
        if self._opened_at is None:
            self.admits_until = self._schedule.fresh_until
            return True
        return self.is_closed or (not self._half_open and now >= self._schedule.due())

    def remaining_delay(self) -> float:
        """Returns after how many seconds a call may be admitted; 0 for now."""
        now = self._clock()
        held, _ = self._schedule.hold_remaining(now)
        return held if self.is_closed else max(held, self._schedule.due() - now)

    def cause(self) -> type[ParleyError] | None:
        """Returns the type of failure because of which calls are rejected; None if none are, or it is unknown."""
        if self._schedule.hold_remaining(self._clock())[1]:
            return UpstreamRateLimited
        return None if self.is_closed else self._cause

    def hold(self, seconds: float, cause: type[ParleyError]) -> None:
        """Rejects all calls for `seconds`, as the target has requested with a failure of type `cause`."""
        self.admits_until = _UNKNOWN
        self._schedule.hold(self._clock(), seconds, limited=issubclass(cause, UpstreamRateLimited))

    def try_acquire_permit(self) -> int | None:
        """Admits a call and returns its permit; None if the call is rejected."""
        if self._schedule.is_held(self._clock()):
            return None
        if self._opened_at is None or self.is_closed:
            return self.permit
        if self._half_open or not self._schedule.try_acquire_probe(self._clock()):
            return None
        self._half_open = True
        self.permit += 1
        return self.permit

    def is_probe(self, permit: int) -> bool:
        """Returns whether this is the permit of the running probe."""
        return self._half_open and permit == self.permit

    def record_first_token(self, permit: int) -> int:
        """Records a first token, with which a probe succeeds. Returns the permit for the call's result."""
        if self.is_probe(permit):
            self._recover()
            return self.permit
        return permit

    def record_success(self, permit: int) -> None:
        """Records that the target answered, even if it rejected the request."""
        if permit != self.permit:
            return
        if self._half_open:
            self._recover()
        else:
            self._consecutive_failures = self._late_calls = 0
            self._results.append((self._clock(), False))

    def record_failure(self, permit: int, cause: type[ParleyError] | None = None) -> None:
        """Records a failure of the target. Its type is the breaker's cause while the breaker is open."""
        if permit == self.permit:
            self._record_failure(cause, only_late=False, suffices=self._confirms_other())

    def record_late(self, permit: int) -> None:
        """Records a late first token, which counts as a failure until the token arrives."""
        if permit != self.permit:
            return
        self._late_calls += 1
        consecutive = self._consecutive_failures + 1
        only_late = self.only_late if self._half_open else self._late_calls >= consecutive
        self._record_failure(UpstreamTimeout, only_late=only_late, suffices=False)

    def clear_late(self, permit: int) -> None:
        """Records the first token of a late call: the late failure no longer counts, or an open breaker probes now."""
        if permit == self.permit:
            self._consecutive_failures = self._late_calls = 0
            last = max((index for index, (_, failed) in enumerate(self._results) if failed), default=None)
            if last is not None:
                self._results[last] = (self._results[last][0], False)
        elif self.only_late:
            self.probe_now()

    def release(self, permit: int) -> bool:
        """Records that a call ended without a result for the target, for example because it was cancelled.

        Returns:
            Whether the call was the probe.
        """
        was_probe = self.is_probe(permit)
        if was_probe:
            self._schedule.reschedule(self._clock())
            self._open()
        return was_probe

    def probe_now(self) -> None:
        """Makes the next probe due now, for example because a health check has succeeded."""
        if not self.is_closed and not self._half_open:
            self._schedule.probe_now(self._clock())

    def reset(self) -> None:
        """Closes the breaker and ends the hold, as an administrator has requested."""
        self._schedule.reset(self._clock())
        self._close()

    def _record_failure(self, cause: type[ParleyError] | None, *, only_late: bool, suffices: bool) -> None:
        """Records a failure of a call with a valid permit.

        Args:
            cause: The type of the failure.
            only_late: Whether all failures that count are late first tokens.
            suffices: Whether this failure alone opens the breaker.
        """
        now = self._clock()
        self._cause = cause
        self.only_late = False
        if self._half_open:
            self._schedule.record_failure(now, only_late=only_late)
        else:
            self._consecutive_failures += 1
            self._results.append((now, True))
            if not suffices and self._consecutive_failures < CONSECUTIVE_FAILURES and not self._failure_rate_exceeded():
                return
            self._schedule.open(now, only_late=only_late)
        self.only_late = only_late
        self._open()

    def _confirms_other(self) -> bool:
        """Returns whether a failure confirms what another worker has seen: an open breaker, and no success here since.

        Without the second condition, a fault of one machine would take the target from healthy ones.
        """
        opened_at = self._schedule.opened_at(self._clock())
        return opened_at is not None and all(failed or at < opened_at for at, failed in self._results)

    def _failure_rate_exceeded(self) -> bool:
        full = len(self._results) == WINDOW and self._results[0][0] >= self._clock() - WINDOW_SECONDS
        return full and 2 * sum(failed for _, failed in self._results) >= WINDOW

    def _open(self) -> None:
        self._opened_at = self._clock()
        self.admits_until = _UNKNOWN
        self._half_open = False
        self.permit += 1

    def _recover(self) -> None:
        self._schedule.recover(self._clock())
        self._close()

    def _close(self) -> None:
        self._opened_at = None
        self._cause = None
        self._half_open = False
        self.permit += 1
        self._consecutive_failures = self._late_calls = 0
        self.only_late = False
        self._results: deque[tuple[float, bool]] = deque(maxlen=WINDOW)
