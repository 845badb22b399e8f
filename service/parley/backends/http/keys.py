"""The keys of a backend, in rotation, with a breaker each."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from parley.core.errors import UpstreamError, UpstreamMisconfigured, UpstreamQuotaExhausted, UpstreamRateLimited
from parley.core.ports import UpstreamCall

_REFUSED_STATUSES = frozenset({401, 403})
KEY_STATUSES = _REFUSED_STATUSES | {402, 429}
"""The statuses of answers to a request that another key may not get."""
_FIRST_SECONDS = 1.0  # of a rate limit without `Retry-After`
_FIRST_SECONDS_USED_UP = 10.0  # of a refused key, and of one without quota
_MAX_SECONDS = 600.0
_MAX_FAILURES = 16  # a larger exponent changes nothing
_PROBE_SECONDS = 60.0  # after which another call probes, if the probe has no result yet

_log = structlog.get_logger()


@dataclass(slots=True)
class _Breaker:
    """The breaker of one key: closed, open, or half open, while a call probes the key.

    As that of a target, it ignores results of calls whose permit is from before the last change of state.

    Attributes:
        failures: Failures in a row; 0 while the breaker is closed.
        due: When the next call may probe the key, on the ring's clock; 0 while the breaker is closed.
        half_open: Whether a call probes the key.
        permit: The permit of the calls that are sent in the current state.
    """

    failures: int = 0
    due: float = 0.0
    half_open: bool = False
    permit: int = 0

    def admits(self, now: float) -> bool:
        """Returns whether a call may use the key."""
        return not self.failures or now >= self.due

    def acquire(self, now: float) -> int:
        """Returns the permit for a call. The call is the probe if one is due."""
        if self.failures and now >= self.due:
            self._change(half_open=True)
            self.due = now + _PROBE_SECONDS
        return self.permit

    def open(self, due: float) -> None:
        """Rejects calls until the next probe, after one more failure."""
        self._change(half_open=False)
        self.failures = min(self.failures + 1, _MAX_FAILURES)
        self.due = due

    def retry_probe(self, now: float) -> None:
        """Makes the next call the probe: the latest one has shown nothing about the key."""
        self._change(half_open=False)
        self.due = now

    def close(self) -> None:
        """Admits all calls."""
        self._change(half_open=False)
        self.failures, self.due = 0, 0.0

    def _change(self, *, half_open: bool) -> None:
        self.half_open = half_open
        self.permit += 1


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

    def in_order(self) -> list[str]:
        """Returns the keys for a request beside the calls: those that work first, the next one in turn before others.

        Such a request, as a health check, changes no breaker: a key without quota may still read a list of models, and
        one that may not read it may still answer calls.
        """
        return [self._keys[index] for index in sorted(self._order(), key=lambda index: self._breakers[index].due)]

    def select(self, call: UpstreamCall) -> str:
        """Returns the key for a call, and records its index and its permit in the call."""
        now, order = self._clock(), self._order()
        chosen = next((index for index in order if self._breakers[index].admits(now)), None)
        if chosen is None:
            chosen = min(order, key=lambda index: self._breakers[index].due)
        self._latest = call.key = chosen
        call.key_permit = self._breakers[chosen].acquire(now)
        return self._keys[chosen]

    def record_success(self, call: UpstreamCall) -> None:
        """Closes the breaker of the key that a call was sent with."""
        breaker = self._breakers[call.key]
        if breaker.failures and call.key_permit == breaker.permit:
            breaker.close()
            call.key_permit = breaker.permit  # its stream may still fail
            _log.info("key works again", host=self._name, number=call.key + 1)

    def record_failure(self, call: UpstreamCall, error: UpstreamError, status: int) -> None:
        """Opens the breaker of the key that a call was sent with, if the failure is that of the key.

        If no key is left, the `Retry-After` of the failure becomes the time until the first of them is probed.

        Args:
            call: The call.
            error: Its failure.
            status: The HTTP status; 0 for an error event.
        """
        first = _first_delay(error, status)
        if first is not None:
            call.key_failures += 1
        breaker = self._breakers[call.key]
        if call.key_permit == breaker.permit and (breaker.half_open or not breaker.failures):
            self._change_state(call, error, first)
        if first is not None and error.retry_after is not None and all(one.failures for one in self._breakers):
            error.retry_after = max(0.0, min(one.due for one in self._breakers) - self._clock())

    def _change_state(self, call: UpstreamCall, error: UpstreamError, first: float | None) -> None:
        """Changes the state of a breaker after a failure that counts for it.

        Args:
            call: The call.
            error: Its failure.
            first: Seconds until the first probe; None if the failure is not that of the key.
        """
        breaker = self._breakers[call.key]
        if first is None:
            if breaker.half_open:
                breaker.retry_probe(self._clock())
            return
        seconds = min(_MAX_SECONDS, error.retry_after or first * 2**breaker.failures)
        if not breaker.failures:
            _log.warning("key left out", host=self._name, number=call.key + 1, seconds=seconds, cause=error.cause)
        breaker.open(self._clock() + seconds)

    def has_other(self, call: UpstreamCall, failures: int) -> bool:
        """Returns whether the latest failure was that of a key, and another key may be tried now.

        Args:
            call: The call.
            failures: The number of the call's failures of keys before the latest request.
        """
        now = self._clock()
        # Each key once: a vendor may name a delay that is over at once.
        return failures < call.key_failures < len(self._keys) and any(one.admits(now) for one in self._breakers)

    def _order(self) -> list[int]:
        """Returns the indexes of the keys, the next one in turn first."""
        size = len(self._keys)
        return [(self._latest + step) % size for step in range(1, size + 1)]


def _first_delay(error: UpstreamError, status: int) -> float | None:
    """Returns the seconds until the first probe of a key; None for a failure that is not that of the key."""
    if isinstance(error, UpstreamQuotaExhausted):
        return _FIRST_SECONDS_USED_UP
    if isinstance(error, UpstreamRateLimited):
        return None if error.is_suspect else _FIRST_SECONDS
    if isinstance(error, UpstreamMisconfigured) and status in _REFUSED_STATUSES:
        return _FIRST_SECONDS_USED_UP
    return None
