"""The keys of a backend, in rotation, with a breaker each."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from parley.core.errors import UpstreamError, UpstreamMisconfigured, UpstreamQuotaExhausted, UpstreamRateLimited
from parley.core.ports import UpstreamCall

_REFUSED_STATUSES = frozenset({401, 403})
_FIRST_SECONDS = 1.0  # of a rate limit without `Retry-After`
_FIRST_SECONDS_USED_UP = 10.0  # of a refused key, and of one without quota
_MAX_SECONDS = 600.0
_PROBE_SECONDS = 60.0  # after which another call probes, if the probe has no result yet

_log = structlog.get_logger()


@dataclass(slots=True)
class _Breaker:
    """The breaker of one key.

    Attributes:
        failures: Failures in a row; 0 while the breaker is closed.
        due: When the next call may probe the key, on the ring's clock.
    """

    failures: int = 0
    due: float = 0.0


class KeyRing:
    """Chooses the key of each call in turn, without those whose breaker is open.

    The breaker of a key opens with its first failure: the vendor refuses the key, or its rate or quota is used up. It
    is then probed by one call at a time, after 1 s for a rate and 10 s otherwise, or after the vendor's `Retry-After`,
    doubling to 10 minutes. A success closes it. If all are open, the key whose probe is due first is used: the failure
    is then that of the target.

    Args:
        keys: The keys.
        name: The host of the backend, for the log.
        clock: Returns the time in seconds.
    """

    def __init__(self, keys: Sequence[str], name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = tuple(keys)
        self._breakers = [_Breaker() for _ in keys]
        self._name = name
        self._clock = clock
        self._latest = -1

    @property
    def counts(self) -> tuple[int, int]:
        """The number of keys that work, and of those that are left out."""
        left_out = sum(1 for one in self._breakers if one.failures)
        return len(self._keys) - left_out, left_out

    def select(self, call: UpstreamCall) -> str:
        """Returns the key for a call, and records its index in the call."""
        size, now = len(self._keys), self._clock()
        order = [(self._latest + step) % size for step in range(1, size + 1)]
        chosen = next((index for index in order if self._admits(index, now)), None)
        if chosen is None:
            chosen = min(order, key=lambda index: self._breakers[index].due)
        breaker = self._breakers[chosen]
        if breaker.failures:
            breaker.due = max(breaker.due, now + _PROBE_SECONDS)
        self._latest = call.key = chosen
        return self._keys[chosen]

    def record_success(self, call: UpstreamCall) -> None:
        """Closes the breaker of the key that a call was sent with."""
        breaker = self._breakers[call.key]
        if breaker.failures:
            breaker.failures = 0
            _log.info("key works again", host=self._name, number=call.key + 1)

    def record_failure(self, call: UpstreamCall, error: UpstreamError, status: int) -> None:
        """Opens the breaker of the key that a call was sent with, if the failure is that of the key.

        If no key is left, the `Retry-After` of the failure becomes the time until the first of them is probed.

        Args:
            call: The call.
            error: Its failure.
            status: The HTTP status; 0 for an error event.
        """
        breaker = self._breakers[call.key]
        first = _first_delay(error, status)
        if first is None:
            if breaker.failures:
                breaker.due = self._clock()  # the probe has shown nothing about the key: the next call probes
            return
        seconds = min(_MAX_SECONDS, error.retry_after or first * 2**breaker.failures)
        if not breaker.failures:
            _log.warning("key left out", host=self._name, number=call.key + 1, seconds=seconds, cause=error.cause)
        breaker.failures = min(breaker.failures + 1, 16)
        breaker.due = self._clock() + seconds
        call.key_failures += 1
        if error.retry_after is not None and all(one.failures for one in self._breakers):
            error.retry_after = max(0.0, min(one.due for one in self._breakers) - self._clock())

    def has_other(self, call: UpstreamCall, failures: int) -> bool:
        """Returns whether the latest failure was that of a key, and another key may be tried now.

        Args:
            call: The call.
            failures: The number of the call's failures of keys before the latest request.
        """
        size, now = len(self._keys), self._clock()
        # Each key once: a vendor may name a delay that is over at once.
        return failures < call.key_failures < size and any(self._admits(index, now) for index in range(size))

    def _admits(self, index: int, now: float) -> bool:
        breaker = self._breakers[index]
        return not breaker.failures or now >= breaker.due


def _first_delay(error: UpstreamError, status: int) -> float | None:
    """Returns the seconds until the first probe of a key; None for a failure that is not that of the key."""
    if isinstance(error, UpstreamQuotaExhausted):
        return _FIRST_SECONDS_USED_UP
    if isinstance(error, UpstreamRateLimited):
        return None if error.is_suspect else _FIRST_SECONDS
    if isinstance(error, UpstreamMisconfigured) and status in _REFUSED_STATUSES:
        return _FIRST_SECONDS_USED_UP
    return None
