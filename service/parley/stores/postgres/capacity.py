"""How many connections one worker opens where the server has no room for those of all workers."""

import asyncio
from math import inf

FULL_SECONDS = 5.0
"""For so long after the server had no room for one more connection none is tried."""
TURNOVER_SECONDS = 1.0
"""A busy worker gives a connection up so often."""
REOPEN_SECONDS = 0.5
"""And opens another one after this pause, unless a worker that waits for one was faster."""


class ConnectionLimit:
    """Decides when a worker opens connections, and when it gives one up.

    A pooler in session mode, or a server at its `max_connections`, has a connection for a worker only when another
    worker closes one. A worker that always needs all of its own would keep the others out, so it closes one every
    second and opens it again, behind those who wait.
    """

    def __init__(self, size: int) -> None:
        """Allows up to `size` connections."""
        self._size = size
        self._limit = size  # how many were open when the server was full
        self._at_limit_until = -inf
        self._closed_at = -inf
        self.opening_since = inf
        """When an attempt to open one more began that has not ended."""

    def allows_one_more(self, count: int) -> bool:
        """Tells whether a connection may be opened beside `count` others."""
        if count == 0:
            return True
        now = _now()
        if now < self._closed_at + REOPEN_SECONDS:
            return False
        return count < (self._limit if now < self._at_limit_until else self._size)

    def record_limit(self, count: int) -> None:
        """Records that the server had no room beside `count` connections."""
        self._limit = count
        self._at_limit_until = _now() + FULL_SECONDS

    def should_close_one(self, count: int) -> bool:
        """Tells whether one of `count` connections, which are all needed, is to be closed for another worker."""
        now = _now()
        is_at_limit = count == self._size or now < self._at_limit_until or now > self.opening_since + REOPEN_SECONDS
        if count == 1 or not is_at_limit or now < self._closed_at + TURNOVER_SECONDS:
            return False
        self._closed_at = now
        return True


def _now() -> float:
    return asyncio.get_running_loop().time()
