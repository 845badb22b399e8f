"""The number of connections of a worker if the server cannot serve the pools of all workers."""

import asyncio
from math import inf

FULL_SECONDS = 5.0
"""The pause after the server rejected a connection for lack of capacity."""
TURNOVER_SECONDS = 1.0
"""The interval at which a busy worker closes a connection for other workers."""
REOPEN_SECONDS = 0.5
"""The pause after which it opens another one, unless a waiting worker was faster."""


class ConnectionLimit:
    """Decides when a worker opens and closes connections.

    A pooler in session mode, or a server at its `max_connections`, accepts a connection of one worker only after
    another worker has closed one. A worker that always needs all of its connections would exclude the others.
    Therefore it closes one every second and reopens it after the waiting workers.
    """

    def __init__(self, size: int) -> None:
        """Allows up to `size` connections."""
        self._size = size
        self._limit = size  # the open connections when the server was full
        self._at_limit_until = -inf
        self._closed_at = -inf
        self.opening_since = inf
        """The start of a running attempt to open a connection; infinity if there is none."""

    def allows_one_more(self, count: int) -> bool:
        """Returns whether another connection may be opened while `count` are open."""
        if count == 0:
            return True
        now = _now()
        if now < self._closed_at + REOPEN_SECONDS:
            return False
        return count < (self._limit if now < self._at_limit_until else self._size)

    def record_limit(self, count: int) -> None:
        """Records that the server rejected a connection while `count` were open."""
        self._limit = count
        self._at_limit_until = _now() + FULL_SECONDS

    def should_close_one(self, count: int) -> bool:
        """Returns whether to close one of `count` connections in use for another worker."""
        now = _now()
        is_at_limit = count == self._size or now < self._at_limit_until or now > self.opening_since + REOPEN_SECONDS
        if count == 1 or not is_at_limit or now < self._closed_at + TURNOVER_SECONDS:
            return False
        self._closed_at = now
        return True


def _now() -> float:
    return asyncio.get_running_loop().time()
