"""A pool of connections to one address."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from time import monotonic

from parley.backends.http.connection import Connection
from parley.backends.http.errors import ConnectionFailed, HttpError, PoolExhausted

_KEEP_ALIVE = 60.0  # seconds that a connection may be idle


class Pool:
    """Lends connections and takes them back; it opens one if none is idle.

    Args:
        connect: Opens a connection.
        size: Maximum number of open connections.
        max_age: Seconds after which a connection is not reused.
    """

    def __init__(self, connect: Callable[[], Awaitable[Connection]], size: int, max_age: float) -> None:
        self._connect = connect
        self._size = size
        self._max_age = max_age
        self._idle: list[Connection] = []  # the last one was used last
        self._lent: set[Connection] = set()
        self._slots = size  # free ones: each lent connection and each one that is being opened takes one
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._fresh_since = 0.0  # monotonic time; connections opened before it are not reused
        self._sweeper: asyncio.TimerHandle | None = None
        self._is_closed = False

    @property
    def counts(self) -> tuple[int, int, int]:
        """The used connections, the idle ones, and the calls that wait for one."""
        return len(self._lent), len(self._idle), len(self._waiters)

    def take_idle(self) -> Connection | None:
        """Returns an idle connection; None if there is none, or all connections are in use."""
        if not self._slots:
            return None
        connection = self._pop_idle()
        if connection is not None:
            self._slots -= 1
            self._lent.add(connection)
        return connection

    async def open(self, seconds: float, deadline: float) -> tuple[Connection, bool]:
        """Returns a connection, and whether it was used before.

        Args:
            seconds: Maximum wait, including the wait for a free slot.
            deadline: The call's deadline, as a time of the event loop's clock.

        Raises:
            ConnectionFailed: If no connection can be made.
            PoolExhausted: If no connection became free in time.
            TimeoutError: If the deadline passed.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        has_slot = False
        try:
            async with asyncio.timeout_at(min(until, deadline)) as timer:
                await self._acquire_slot()
                has_slot = True
                return await self._take_or_connect()
        except (HttpError, OSError) as error:
            if timer.expired() and deadline <= until:
                raise
            if timer.expired() and not has_slot:
                raise PoolExhausted(f"all {self._size} `connections` to this backend are in use") from None
            raise ConnectionFailed(error) from error

    def give_back(self, connection: Connection) -> None:
        """Takes back a connection, which is closed if it cannot be reused."""
        self._lent.discard(connection)
        now = connection.released = monotonic()
        is_reusable = connection.is_open and connection.can_continue
        if is_reusable and now - connection.opened < self._max_age and not self._is_closed:
            self._idle.append(connection)
            if self._sweeper is None:
                self._sweeper = asyncio.get_running_loop().call_later(_KEEP_ALIVE, self._sweep)
        else:
            connection.close()
        if self._waiters:
            self._release_slot()
        else:
            self._slots += 1

    def distrust(self) -> None:
        """Makes every connection that is open now unusable for further requests."""
        self._fresh_since = monotonic()

    def close(self) -> None:
        """Closes every connection."""
        self._is_closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in (*self._idle, *self._lent):
            connection.close()

    async def _take_or_connect(self) -> tuple[Connection, bool]:
        try:
            connection = self._pop_idle()
            is_used = connection is not None
            connection = connection or await self._connect()
        except BaseException:
            self._release_slot()
            raise
        self._lent.add(connection)
        return connection, is_used

    def _pop_idle(self) -> Connection | None:
        now = monotonic()
        while self._idle:
            connection = self._idle.pop()
            is_fresh = connection.opened > self._fresh_since and now - connection.released < _KEEP_ALIVE
            if connection.is_open and is_fresh:
                return connection
            connection.close()
        return None

    async def _acquire_slot(self) -> None:
        if self._slots:
            self._slots -= 1
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():  # it was given a slot in the meantime
                self._release_slot()
            else:
                self._waiters.remove(waiter)
            raise

    def _release_slot(self) -> None:
        """Gives the slot to the first call that waits, if any."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._slots += 1

    def _sweep(self) -> None:
        """Closes the connections that were idle for too long."""
        now = monotonic()
        kept = []
        for connection in self._idle:
            if connection.is_open and now - connection.released < _KEEP_ALIVE:
                kept.append(connection)
            else:
                connection.close()
        self._idle = kept
        self._sweeper = asyncio.get_running_loop().call_later(_KEEP_ALIVE, self._sweep) if kept else None
