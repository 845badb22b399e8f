"""When a target that fails is tried again. The workers of a machine share it, so that one of them probes for all."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

INITIAL_INTERVAL = 10.0
MAX_INTERVAL = 15.0
"""Seconds between two probes: they double with each probe that fails, from the first pause to the longest."""


MAX_HOLD = 300.0
"""Seconds for which a target's own `Retry-After` keeps calls away from it, at the most."""


_REFRESH_SECONDS = 0.02  # seconds: the hold of another worker is seen that late, and most calls read no file


class ProbeTimes(NamedTuple):
    """When the next probe is due, how long the pause to it is, and when a pause was last ended: seconds of a clock.

    `held_until` is the time before which the target has asked not to be called, `rate_limited` is 1 where its rate
    limit is why.
    """

    next_probe: float = 0.0
    interval: float = INITIAL_INTERVAL
    recovered_at: float = float("-inf")
    held_until: float = float("-inf")
    rate_limited: float = 0.0


class SharedState(Protocol):
    """Where the numbers of one target are."""

    def read(self) -> ProbeTimes:
        """Returns them."""
        ...

    def update(self, change: Callable[[ProbeTimes], ProbeTimes]) -> ProbeTimes:
        """Changes them, while nobody else does; returns what they were before."""
        ...


class InMemoryState:
    """The cell of a worker that shares with nobody."""

    def __init__(self) -> None:
        self._times = ProbeTimes()

    def read(self) -> ProbeTimes:
        """Returns the numbers."""
        return self._times

    def update(self, change: Callable[[ProbeTimes], ProbeTimes]) -> ProbeTimes:
        """Changes them; returns what they were before."""
        previous = self._times
        self._times = change(previous)
        return previous


class ProbeSchedule:
    """One target's pause. `now` is everywhere the time of a clock that all who share the cell have in common."""

    def __init__(self, state: SharedState) -> None:
        self._state = state
        self._cached = ProbeTimes()  # what `hold_remaining` has read
        self._cached_at = float("-inf")

    def open(self, now: float) -> None:
        """Begins the first pause, unless one is running; a time too far away is of the clock before a restart."""
        self._state.update(
            lambda old: old if now < old.next_probe <= now + MAX_INTERVAL else self._times(now, INITIAL_INTERVAL, old)
        )

    def due(self) -> float:
        """Returns when the next probe may be made."""
        return self._state.read().next_probe

    def try_acquire_probe(self, now: float) -> bool:
        """Takes the probe, so that nobody else makes one within the pause; False where it is not due."""
        previous = self._state.update(
            lambda old: old if now < old.next_probe else old._replace(next_probe=now + old.interval)
        )
        return now >= previous.next_probe

    def record_failure(self, now: float) -> None:
        """Begins a pause twice as long: the probe has failed."""
        self._state.update(lambda old: self._times(now, min(2 * old.interval, MAX_INTERVAL), old))

    def reschedule(self, now: float) -> None:
        """Begins the same pause again: the probe has said nothing."""
        self._state.update(lambda old: self._times(now, old.interval, old))

    def probe_now(self, now: float) -> None:
        """Lets a probe be made at once."""
        self._state.update(lambda old: old._replace(next_probe=now))

    def recover(self, now: float) -> None:
        """Ends the pause for all who share it: the target answers."""
        self._state.update(lambda old: old._replace(next_probe=0.0, interval=INITIAL_INTERVAL, recovered_at=now))

    def recovered_since(self, then: float) -> bool:
        """Tells whether a pause was ended since then."""
        return self._state.read().recovered_at > then

    def hold(self, now: float, seconds: float, *, limited: bool) -> None:
        """Keeps all calls away for so many seconds, at most LONGEST_HOLD; a longer hold that is running stays."""
        self._cached_at = float("-inf")
        until = now + min(seconds, MAX_HOLD)
        self._state.update(
            lambda old: (
                old
                if until < old.held_until <= now + MAX_HOLD
                else old._replace(held_until=until, rate_limited=limited)
            )
        )

    def hold_remaining(self, now: float) -> tuple[float, bool]:
        """Returns for how many seconds calls are kept away, 0 for none, and whether a rate limit is why."""
        if not 0 <= now - self._cached_at < _REFRESH_SECONDS:
            self._cached, self._cached_at = self._state.read(), now
        seconds = self._cached.held_until - now
        return (seconds, bool(self._cached.rate_limited)) if 0 < seconds <= MAX_HOLD else (0.0, False)

    @staticmethod
    def _times(now: float, interval: float, previous: ProbeTimes) -> ProbeTimes:
        return previous._replace(next_probe=now + interval, interval=interval)
