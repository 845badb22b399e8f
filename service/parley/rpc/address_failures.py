"""Failed authentications, counted for each client address."""

import ipaddress
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

_BURST = 100  # failures of an address at once; edge/lua/failures.lua has the same limits
_PER_SECOND = 1.0
_MAX_ADDRESSES = 10_000
_ALWAYS_LOGGED = 10  # failures of an address; of the later ones each power of two
_MAX_LINES = 20  # failures that are logged at once, of all addresses; then one a second


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed authentication.

    Attributes:
        count: The number of this failure of its address, since the address had no failures.
        retry_after: Seconds after which the client should try again; None for an address within its limit.
        is_logged: Whether the failure is logged. The count of a later line contains those that are not.
    """

    count: int
    retry_after: int | None
    is_logged: bool


class _Bucket:
    """A token bucket: `size` tokens, filled with one a second."""

    def __init__(self, size: float, now: float) -> None:
        self.size = size
        self.tokens = size
        self._at = now

    def fill(self, now: float) -> None:
        self.tokens = min(self.size, self.tokens + max(0.0, now - self._at) * _PER_SECOND)
        self._at = now

    def take(self, now: float) -> bool:
        """Takes a token. Returns False if there is none."""
        self.fill(now)
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


class AddressFailures:
    """Limits the failures of an address: 100 at once, and then one a second. An IPv6 network of 64 bits is one address.

    Args:
        clock: Returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}
        self._counts: dict[str, int] = {}
        self._lines = _Bucket(_MAX_LINES, clock())

    def is_limited(self, address: str) -> bool:
        """Returns whether the address has used up its failures."""
        if not self._buckets:
            return False
        bucket = self._buckets.get(network(address))
        if bucket is None:
            return False
        bucket.fill(self._clock())
        return bucket.tokens < 1

    def record(self, address: str) -> Failure:
        """Counts a failure of the address."""
        now, client = self._clock(), network(address)
        bucket = self._bucket(client, now)
        count = self._counts[client] = self._counts.get(client, 0) + 1
        retry_after = None if bucket.take(now) else math.ceil((1 - bucket.tokens) / _PER_SECOND)
        is_logged = (count <= _ALWAYS_LOGGED or count & (count - 1) == 0) and self._lines.take(now)
        return Failure(count, retry_after, is_logged)

    def _bucket(self, client: str, now: float) -> _Bucket:
        """Returns the bucket of an address; a full one is forgotten first, with its count."""
        bucket = self._buckets.get(client)
        if bucket is not None:
            bucket.fill(now)
            if bucket.tokens < bucket.size:
                return bucket
            self._counts.pop(client, None)
        elif len(self._buckets) >= _MAX_ADDRESSES:
            oldest = next(iter(self._buckets))
            del self._buckets[oldest]
            self._counts.pop(oldest, None)
        bucket = self._buckets[client] = _Bucket(_BURST, now)
        return bucket


def network(address: str) -> str:
    """Returns an IPv4 address as it is, and the network of 64 bits of an IPv6 address: a customer has all of it."""
    if ":" not in address:
        return address
    try:
        number = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    if number.ipv4_mapped is not None:
        return str(number.ipv4_mapped)
    return str(ipaddress.IPv6Network((number, 64), strict=False))
