"""The connection pool: each call uses one connection at a time."""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from typing import Any, Generic, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

from parley.core.errors import StoreMisconfigured, StoreUnavailable
from parley.core.ports.statistics import StoreStatistics
from parley.stores.postgres.availability import Availability, probe_write
from parley.stores.postgres.capacity import ConnectionLimit
from parley.stores.postgres.database import (
    Connection,
    Database,
    WrongSchema,
    is_at_connection_limit,
    is_contention,
    is_disconnection,
    is_read_only_server,
    is_timeout,
    outage,
)
from parley.stores.postgres.idle import IdleConnections

T = TypeVar("T")
Work: TypeAlias = Callable[[Connection], Awaitable[T]]

_MAX_TRIES = 6
_PAUSE = 0.01
# The age at which cached plans are discarded. Plans made while the tables were small read complete sessions, and the
# server would keep them until its next analysis of the tables.
_PLAN_SECONDS = 15.0
CHECK_SECONDS = 5.0
"""The time between two checks of the server."""


@dataclass(slots=True)
class Attempts(Generic[T]):
    """The attempts of one call.

    Attributes:
        work: The work of the next attempt.
        again: The form of the work that may follow an execution whose outcome is unknown; None if there is none.
        wait_ends: The time of the event loop's clock until which the call waits for an unavailable server.
        writes: Whether the work writes.
        is_lookup: Whether the work looks up a key, so that its caller is not known.
        is_cancelled: Whether the caller was cancelled: after a wait for the server, no further attempt is made.
        count: The number of attempts.
    """

    work: Work[T]
    again: Work[T] | None
    wait_ends: float
    writes: bool
    is_lookup: bool = False
    is_cancelled: bool = False
    count: int = 0


class Pool:
    """Up to `size` connections, opened on demand and closed when idle.

    Calls wait while the server is unavailable, or fail at once, see `Availability`. A call that has begun continues if
    its caller is cancelled, because an interrupted statement would cost the connection; one that waits ends.

    After the loss of a connection, reads are repeated. Writes are repeated if the server has not executed them, or if
    they have a form that may follow an execution.
    """

    def __init__(self, database: Database, size: int, statistics: StoreStatistics | None = None) -> None:
        """Creates an empty pool.

        Args:
            database: The database.
            size: The maximum number of connections.
            statistics: Counts the calls that wait for the server; None for no statistics.
        """
        self.database = database
        self._size = size
        self._idle = IdleConnections(self._close_one)
        self._planned: WeakKeyDictionary[Connection, float] = WeakKeyDictionary()
        self._open = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._running: set[asyncio.Task[Any]] = set()
        self._availability = Availability(database, self, statistics or StoreStatistics())
        self._capacity = ConnectionLimit(size)
        self._checked = -inf
        self._opener: asyncio.Task[None] | None = None

    @property
    def is_writable(self) -> bool:
        """Whether the server completes writes, as far as it answers at all."""
        return self._availability.is_writable

    async def read(self, work: Work[T], *, is_lookup: bool = False) -> T:
        """Runs work that only reads, and repeats it if the connection was lost.

        Args:
            work: The work.
            is_lookup: Whether the work looks up a key, so that its caller is not known. Fewer of these calls wait.

        Raises:
            StoreUnavailable: The server is unavailable.
        """
        ends = self._wait_ends()
        await self._availability.wait(ends, writes=False, is_lookup=is_lookup)
        return await self._shielded(Attempts(work, None, ends, writes=False, is_lookup=is_lookup))

    async def run(self, work: Work[T], again: Work[T] | None = None, *, waits: bool = True) -> T:
        """Runs work that writes.

        Args:
            work: The work.
            again: Repeats the work if the connection was lost, whether or not the work was committed before; None for
                work that must not be repeated then.
            waits: Whether the call waits while the server is unavailable.

        Raises:
            StoreUnavailable: The server is unavailable; the work may or may not have been committed.
        """
        attempts = Attempts(work, again, self._wait_ends() if waits else -inf, writes=True)
        await self._availability.wait_verified()
        await self._availability.wait(attempts.wait_ends, writes=True)
        return await self._shielded(attempts)

    async def run_in_task(self, work: Work[T], again: Work[T] | None = None) -> T:
        """Does the same as `run` in the current task, which must be one that `spawn` has started."""
        await self._availability.wait_verified()
        return await self._run(Attempts(work, again, self._wait_ends(), writes=True))

    async def wait_available(self) -> None:
        """Waits until the server completes writes, for up to `Timeouts.wait`. Raises StoreUnavailable."""
        await self._availability.wait(self._wait_ends(), writes=True)

    def lease_grace(self) -> float:
        """Returns the remaining seconds in which expired leases must not be ended, because of an outage; 0 if none."""
        return self._availability.lease_grace()

    def start_lease_grace(self) -> None:
        """Lets the holders of expired leases renew them, as after an outage."""
        self._availability.start_lease_grace()

    async def check(self) -> None:
        """Writes to the server and checks the schema's version, at most every `CHECK_SECONDS`.

        The server is unavailable from the upgrade of the schema to a version that does not support this one.

        Raises:
            StoreUnavailable: The server is unavailable.
        """
        self._availability.check(writes=True)
        if _now() - self._checked > CHECK_SECONDS:
            try:
                await self.run(self._check, waits=False)
            except WrongSchema as error:
                self._availability.mark_unavailable(error.cause or str(error), inf)
                raise
            self._checked = _now()

    async def _check(self, connection: Connection) -> None:
        await self.database.check_version(connection)
        await probe_write(connection)

    async def close(self) -> None:
        """Completes the running calls, then closes all connections."""
        self._availability.close()
        self._wake_all()
        while running := [task for task in self._running if task is not asyncio.current_task()]:
            await asyncio.wait(running)
        for connection in self._idle.clear():
            with suppress(Exception):  # the connection is discarded in any case
                await connection.close(timeout=1)

    async def _shielded(self, attempts: Attempts[T]) -> T:
        try:
            return await asyncio.shield(self.spawn(self._run(attempts)))
        except asyncio.CancelledError:
            attempts.is_cancelled = True
            raise

    async def _run(self, attempts: Attempts[T]) -> T:
        while True:
            attempts.count += 1
            connection = await self._acquire(attempts)
            began = _now()
            is_sent = False
            try:
                async with asyncio.timeout(self.database.timeouts.command):
                    await self._refresh_plans(connection, began)
                    async with self.database.prepared(connection):
                        is_sent = True
                        result = await attempts.work(connection)
                    self._availability.record_success(began)
                    return result
            except Exception as error:
                if is_contention(error) and attempts.count < _MAX_TRIES:
                    await asyncio.sleep(random.uniform(0, _PAUSE * 2**attempts.count))  # noqa: S311 - no secret
                    continue
                self._handle_error(connection, error, began)
                if (cause := outage(error)) is None or isinstance(error, StoreUnavailable):
                    raise
                if await self._may_repeat(attempts, error, is_sent=is_sent):
                    continue
                raise self.database.unavailable(cause) from error
            finally:
                self.release(connection)

    async def _may_repeat(self, attempts: Attempts[T], error: Exception, *, is_sent: bool) -> bool:
        """Returns whether work is repeated after an outage, in its other form if it may have been committed."""
        if is_timeout(error):
            await self._availability.wait_verified()
            if self._availability.is_available(writes=attempts.writes):
                return False  # the work itself takes too long, and may still run
        if attempts.writes and is_sent and not is_read_only_server(error):
            if attempts.again is None or not (is_disconnection(error) or is_timeout(error)):
                return False
            attempts.work = attempts.again
        if self._availability.is_available(writes=attempts.writes):
            return attempts.count <= self._size  # all idle connections may have been cut
        return _now() < attempts.wait_ends

    async def _refresh_plans(self, connection: Connection, now: float) -> None:
        if not self.database.pooled and now - self._planned.setdefault(connection, now) > _PLAN_SECONDS:
            await connection.execute("DISCARD PLANS")
            self._planned[connection] = now

    def _handle_error(self, connection: Connection, error: Exception, began: float) -> None:
        """Closes the connection after an outage, and updates the availability of the server."""
        cause = outage(error)
        if cause is None:
            return
        connection.terminate()
        if is_read_only_server(error):
            self._availability.mark_unavailable(cause, began)
        elif is_timeout(error):
            self._availability.suspect(cause)

    async def _acquire(self, attempts: Attempts[Any]) -> Connection:
        """Returns an idle connection, opens one, or waits for one."""
        ends = _now() + self.database.timeouts.command
        while True:
            if await self._availability.wait(attempts.wait_ends, writes=attempts.writes, is_lookup=attempts.is_lookup):
                if attempts.is_cancelled:
                    raise StoreUnavailable("its caller was cancelled")
                ends = _now() + self.database.timeouts.command
            while self._idle:
                connection = self._idle.pop()
                if not connection.is_closed():
                    return connection
                self._open -= 1
            if self._open == 0:
                if (new_connection := await self._connect()) is not None:
                    return new_connection
                continue
            if self._opener is None and self._capacity.allows_one_more(self._open):
                self._opener = self.spawn(self._open_more())
            if not await self._wait(ends - _now()):
                await self._require_unavailable(attempts)

    async def _open_more(self) -> None:
        """Opens connections one after another while calls wait; a call uses the first that is free."""
        try:
            while self._waiting and self._capacity.allows_one_more(self._open):
                self._capacity.opening_since = _now()
                if (new_connection := await self._connect()) is None:
                    return
                self.release(new_connection)
        finally:
            self._opener = None
            self._capacity.opening_since = inf

    async def _connect(self) -> "Connection | None":
        """Opens a connection.

        Returns:
            The connection; None if the server accepts no more, or is unavailable, which `Availability.wait` reports.
        """
        began = _now()
        self._open += 1
        try:
            connection = await self.database.connect()
        except BaseException as error:
            self._open -= 1
            self._wake()
            if self._open and is_at_connection_limit(error.__cause__):
                self._capacity.record_limit(self._open)
                if isinstance(error.__cause__, TimeoutError):
                    self._availability.suspect(str(error))
                return None
            if isinstance(error, StoreUnavailable):
                self._availability.mark_unavailable(error.cause or str(error), began, error)
                if not isinstance(error, StoreMisconfigured):
                    return None
            raise
        self._availability.record_success(_now())
        return connection

    async def _require_unavailable(self, attempts: Attempts[Any]) -> None:
        """Raises StoreUnavailable after a wait in vain for a connection, unless the server turns out to be at fault."""
        cause = f"all {self._size} connections have been busy for too long"
        self._availability.suspect(cause)
        await self._availability.wait_verified()
        if self._availability.is_available(writes=attempts.writes):
            raise self.database.unavailable(cause)

    async def _wait(self, seconds: float) -> bool:
        """Waits for a connection; returns whether there may be one."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout(seconds):
                await waiter
        except TimeoutError:
            return False
        finally:
            with suppress(ValueError):
                self._waiting.remove(waiter)
        return True

    def release(self, connection: Connection) -> None:
        """Returns a connection to the pool."""
        if connection.is_closed() or not self._availability.is_reachable:
            connection.terminate()
            self._open -= 1
        elif self._waiting and self._capacity.should_close_one(self._open):
            self._close_one(connection)
        else:
            self._idle.push(connection)
        self._wake()

    def _close_one(self, connection: Connection) -> None:
        self._open -= 1
        self.spawn(connection.close(timeout=1))

    def _wait_ends(self) -> float:
        return _now() + self.database.timeouts.wait

    def _wake(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _wake_all(self) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
        self._waiting.clear()

    async def borrow(self) -> Connection:
        """Returns an idle connection, or opens one. Raises StoreUnavailable."""
        if self._idle:
            return self._idle.pop()
        connection = await self.database.connect()
        self._open += 1
        return connection

    def add(self, connection: Connection) -> None:
        """Adds an open connection to the pool."""
        self._open += 1
        self.release(connection)

    def abort(self) -> None:
        """Wakes all waiting calls and closes the idle connections."""
        self._wake_all()
        for connection in self._idle.clear():
            connection.terminate()
            self._open -= 1

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Runs a coroutine in a task that `close` waits for."""
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # marks the exception as retrieved, because the caller may have been cancelled


def _now() -> float:
    return asyncio.get_running_loop().time()
