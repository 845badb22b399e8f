"""The schedule of probes of a failing target, shared by the workers of a machine so that one probes for all.

Replicas on other machines share it too, if they have a common store: see `replicated_targets`.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

INITIAL_INTERVAL = 10.0
MAX_INTERVAL = 15.0
"""Seconds between two probes. The interval doubles with each failed probe, from the initial one to the longest."""
REPLICA_DELAY = 1.0, 3.0
"""By how many seconds, at random, a machine probes later than the one that has set the time of the probe.

It is longer than it takes to see that the other machine has made the probe.
"""
_MAX_PAUSE = MAX_INTERVAL + REPLICA_DELAY[1]

MAX_HOLD = 300.0
"""The longest hold in seconds, whatever `Retry-After` the target sends."""

_STALE_SECONDS = 60.0  # without a probe, after which an open breaker shows nothing: its worker may have ended
_REFRESH_SECONDS = 0.02  # delay until the hold of another worker is seen; it saves most calls reading a file


class ProbeTimes(NamedTuple):
    """The shared times of one target, in seconds of the common clock.

    Attributes:
        next_probe: When the next probe is due.
        interval: The current interval between probes.
        recovered_at: When a probe last succeeded.
        held_until: The end of the hold.
        rate_limited: 1 if a rate limit is the reason for the hold, else 0.
        opened_at: When the breaker of a worker has opened, unless first tokens are only late; `-inf` if all are closed.
    """

    next_probe: float = 0.0
    interval: float = INITIAL_INTERVAL
    recovered_at: float = float("-inf")
    held_until: float = float("-inf")
    rate_limited: float = 0.0
    opened_at: float = float("-inf")

    def is_open(self, now: float) -> bool:
        """Returns whether the breaker of a worker is open, and not only because first tokens are late."""
        is_current = now - _STALE_SECONDS < self.next_probe <= now + _MAX_PAUSE
        return is_current and self.opened_at > self.recovered_at

    def opened(self, now: float, at: float) -> "ProbeTimes":
        """Returns the times with a breaker that is open since `at`, or since an earlier opening."""
        return self if self.is_open(now) else self._replace(opened_at=at)

    def recovered(self, at: float) -> "ProbeTimes":
        """Returns the times with closed breakers."""
        return self._replace(next_probe=0.0, interval=INITIAL_INTERVAL, recovered_at=at, opened_at=float("-inf"))

    def held(self, now: float, until: float, *, limited: bool) -> "ProbeTimes":
        """Returns the times with a hold. A longer hold that is running stays."""
        if until < self.held_until <= now + MAX_HOLD:
            return self
        return self._replace(held_until=until, rate_limited=float(limited))


class SharedState(Protocol):
    """Stores the times of one target."""

    def read(self) -> ProbeTimes:
        """Returns the times."""
        ...

    def update(self, change: Callable[[ProbeTimes], ProbeTimes]) -> ProbeTimes:
        """Changes the times atomically. Returns the previous times."""
        ...

    def part(self, name: str) -> "SharedState":
        """Returns the state of a part of the target's calls."""
        ...


class InMemoryState:
    """The state of a worker that shares nothing."""

    def __init__(self) -> None:
        self._times = ProbeTimes()

    def read(self) -> ProbeTimes:
        """Returns the times."""
        return self._times

    def update(self, change: Callable[[ProbeTimes], ProbeTimes]) -> ProbeTimes:
        """Changes the times. Returns the previous times."""
        previous = self._times
        self._times = change(previous)
        return previous

    def part(self, name: str) -> "InMemoryState":
        """Returns a new state."""
        return InMemoryState()


class ProbeSchedule:
    """The probe schedule of one target. `now` is the time of the clock that all sharing workers have in common.

    Attributes:
        fresh_until: Until when `is_held` does not read the shared state again.
    """

    def __init__(self, state: SharedState) -> None:
        self._state = state
        self._cached = ProbeTimes()  # what `is_held` has read
        self.fresh_until = float("-inf")

    def open(self, now: float, *, only_late: bool = False) -> None:
        """Starts the first interval unless one is running.

        A time further away than the longest interval was set before a restart of the clock, and is replaced.

        Args:
            now: The time.
            only_late: Whether the breaker opens only because first tokens are late, which is no sign for others.
        """

        def change(old: ProbeTimes) -> ProbeTimes:
            is_running = now < old.next_probe <= now + _MAX_PAUSE
            times = old if is_running else self._times(now, INITIAL_INTERVAL, old)
            return times if only_late else times.opened(now, now)

        self._state.update(change)

    def opened_at(self, now: float) -> float | None:
        """Returns when the breaker of a worker has opened; None if those of all workers are closed."""
        times = self._state.read()
        return times.opened_at if times.is_open(now) else None

    def due(self) -> float:
        """Returns when the next probe is due."""
        return self._state.read().next_probe

    def try_acquire_probe(self, now: float) -> bool:
        """Acquires the probe, so that no other worker probes within the interval. Returns False if it is not due."""
        previous = self._state.update(
            lambda old: old if now < old.next_probe else old._replace(next_probe=now + old.interval)
        )
        return now >= previous.next_probe

    def record_failure(self, now: float, *, only_late: bool = False) -> None:
        """Starts an interval twice as long, because the probe has failed. See `open` for the arguments."""

        def change(old: ProbeTimes) -> ProbeTimes:
            times = self._times(now, min(2 * old.interval, MAX_INTERVAL), old)
            return times if only_late else times.opened(now, now)

        self._state.update(change)

    def reschedule(self, now: float) -> None:
        """Starts the same interval again, because the probe had no result."""
        self._state.update(lambda old: self._times(now, old.interval, old))

    def probe_now(self, now: float) -> None:
        """Makes the next probe due now."""
        self._state.update(lambda old: old._replace(next_probe=now))

    def recover(self, now: float) -> None:
        """Closes the breakers of all workers, because the target answers."""
        self._state.update(lambda old: old.recovered(now))

    def reset(self, now: float) -> None:
        """Closes the breakers of all workers, and ends the hold."""
        self.fresh_until = float("-inf")
        self._state.update(lambda _: ProbeTimes(recovered_at=now))

    def recovered_since(self, then: float) -> bool:
        """Returns whether the target has recovered since the time `then`."""
        return self._state.read().recovered_at > then

    def hold(self, now: float, seconds: float, *, limited: bool) -> None:
        """Rejects all calls for `seconds`, at most `MAX_HOLD`. A longer hold that is running stays."""
        self.fresh_until = float("-inf")
        until = now + min(seconds, MAX_HOLD)
        self._state.update(lambda old: old.held(now, until, limited=limited))

    def is_held(self, now: float) -> bool:
        """Returns whether all calls are rejected now."""
        if now >= self.fresh_until:
            self._cached, self.fresh_until = self._state.read(), now + _REFRESH_SECONDS
        return 0 < self._cached.held_until - now <= MAX_HOLD

    def hold_remaining(self, now: float) -> tuple[float, bool]:
        """Returns the rest of the hold in seconds, 0 for none, and whether a rate limit is its reason."""
        if not self.is_held(now):
            return 0.0, False
        return self._cached.held_until - now, bool(self._cached.rate_limited)

    @staticmethod
    def _times(now: float, interval: float, previous: ProbeTimes) -> ProbeTimes:
        return previous._replace(next_probe=now + interval, interval=interval)
