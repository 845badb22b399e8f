"""Open connections that no call uses."""

import asyncio
from collections import deque
from collections.abc import Callable

from parley.stores.postgres.database import Connection

IDLE_SECONDS = 2.0


class IdleConnections:
    """A stack of idle connections. All but one are closed after `IDLE_SECONDS`.

    The server, or a pooler in session mode, may allow fewer connections than the pools of all workers. A connection
    that one worker keeps after a burst of calls would be unavailable to the others.
    """

    def __init__(self, close: Callable[[Connection], None]) -> None:
        """Creates an empty stack. `close` closes a connection."""
        self._close = close
        self._stack: deque[tuple[Connection, float]] = deque()  # with the start of the idle time
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        """Returns the number of connections."""
        return len(self._stack)

    def push(self, connection: Connection) -> None:
        """Adds a connection, which is the next to be used."""
        loop = asyncio.get_running_loop()
        self._stack.append((connection, loop.time()))
        if self._timer is None and len(self._stack) > 1:
            self._timer = loop.call_at(self._stack[0][1] + IDLE_SECONDS, self._shrink)

    def pop(self) -> Connection:
        """Removes and returns the connection that was used last. Raises IndexError if there is none."""
        return self._stack.pop()[0]

    def clear(self) -> list[Connection]:
        """Removes all connections and returns them."""
        connections = [connection for connection, _ in self._stack]
        self._stack.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        return connections

    def _shrink(self) -> None:
        """Closes expired connections at the bottom of the stack."""
        loop = asyncio.get_running_loop()
        self._timer = None
        while len(self._stack) > 1 and self._stack[0][1] + IDLE_SECONDS <= loop.time():
            self._close(self._stack.popleft()[0])
        if len(self._stack) > 1:
            self._timer = loop.call_at(self._stack[0][1] + IDLE_SECONDS, self._shrink)
