"""Connections that are lent for one call each, and what happens while the server is away."""

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from math import inf
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from parley.core.errors import StoreUnavailable
from parley.stores.postgres.capacity import ConnectionLimit
from parley.stores.postgres.database import (
    Connection,
    Database,
    is_at_connection_limit,
    is_contention,
    is_read_only_server,
    is_timeout,
    outage,
)
from parley.stores.postgres.idle import IdleConnections

T = TypeVar("T")

_MAX_TRIES = 6
_PAUSE = 0.01
# Plans of statements are kept for so long. Those that were made while the tables were small would be kept until the
# server looks at the tables by itself, and read whole sessions meanwhile.
_PLAN_SECONDS = 15.0
_CHECK_SECONDS = 5.0  # between two checks that write
_MAX_PROBE_SECONDS = 15.0  # a write that hangs is waited for so long before another one is tried
_UNWRITABLE = "it answers reads, and does not complete writes; see whether a synchronous standby is gone"
# It waits for the disk and for synchronous standbys as a turn's commit does, and needs no table.
_WRITE = "SELECT pg_logical_emit_message(true, 'parley', '')"


class Pool:
    """Up to `size` connections, opened when they are needed, and closed when they are not.

    While the server is known to be away every call fails at once, and one task probes it. Where it answers reads and
    does not complete writes, as with a synchronous standby that is gone, only calls that write fail. A call that is not
    finished in time fails alone; the server is away when it does not complete a probe after that either. A call that
    has begun goes on when its caller is cancelled: a statement that was half sent would cost the connection.
    """

    def __init__(self, database: Database, size: int) -> None:
        self.database = database
        self._size = size
        self._idle = IdleConnections(self._close_one)
        self._planned: WeakKeyDictionary[Connection, float] = WeakKeyDictionary()
        self._open = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._running: set[asyncio.Task[Any]] = set()
        self._unavailable: str | None = None
        self._unwritable: str | None = None
        self._verification: asyncio.Task[None] | None = None
        self._capacity = ConnectionLimit(size)
        self._seen = 0.0
        self._checked = -inf
        self._prober: asyncio.Task[None] | None = None
        self._opener: asyncio.Task[None] | None = None
        self._closed = False

    async def read(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Does work that only reads: it is done again where the connection was lost. Raises StoreUnavailable."""
        self._check(writes=False)
        return await asyncio.shield(self._spawn(self._run(work, writes=False)))

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Does work that writes.

        Raises StoreUnavailable where the server is away, and then it is unknown whether the work was done.
        """
        if self._verification is not None:
            await asyncio.wait({self._verification})  # rather than wait for as long as the call that was too slow
        self._check(writes=True)
        return await asyncio.shield(self._spawn(self._run(work, writes=True)))

    async def check(self) -> None:
        """Writes to the server, unless it did so within seconds. Raises StoreUnavailable."""
        self._check(writes=True)
        if _now() - self._checked > _CHECK_SECONDS:
            await self.run(_probe_write)
            self._checked = _now()

    async def close(self) -> None:
        """Finishes what is running, then closes every connection."""
        self._closed = True
        self._fail_waiting("the store is closed")
        if self._prober is not None:
            self._prober.cancel()
        while running := [task for task in self._running if task is not asyncio.current_task()]:
            await asyncio.wait(running)
        for connection in self._idle.clear():
            with suppress(Exception):  # it is of no use any more, whatever it says
                await connection.close(timeout=1)

    async def _run(self, work: Callable[[Connection], Awaitable[T]], *, writes: bool) -> T:
        tries = 0
        while True:
            tries += 1
            connection = await self._acquire(writes=writes)
            began = _now()
            try:
                async with asyncio.timeout(self.database.timeouts.command):
                    await self._refresh_plans(connection)
                    async with self.database.prepared(connection):
                        result = await work(connection)
                    self._seen = max(self._seen, began)
                    return result
            except Exception as error:
                if is_contention(error) and tries < _MAX_TRIES:
                    await asyncio.sleep(random.uniform(0, _PAUSE * 2**tries))  # noqa: S311 - no secret
                    continue
                self._handle_error(connection, error, began)
                if (cause := outage(error)) is None or isinstance(error, StoreUnavailable):
                    raise
                # Of connections that were cut while they were idle there may be as many as there are.
                if not writes and tries <= self._size and self._unavailable is None and not is_timeout(error):
                    continue
                raise self.database.unavailable(cause) from error
            finally:
                self._release(connection)

    async def _refresh_plans(self, connection: Connection) -> None:
        if not self.database.pooled and _now() - self._planned.setdefault(connection, _now()) > _PLAN_SECONDS:
            await connection.execute("DISCARD PLANS")
            self._planned[connection] = _now()

    def _handle_error(self, connection: Connection, error: Exception, began: float) -> None:
        """Drops the connection after an outage, and finds out whether the server is away."""
        cause = outage(error)
        if cause is None:
            return
        connection.terminate()
        if is_read_only_server(error):
            self._mark_unavailable(cause, began)
        elif is_timeout(error):
            self._suspect(cause)

    async def _acquire(self, *, writes: bool) -> Connection:
        """Takes an idle connection, opens one, or waits for one."""
        ends = _now() + self.database.timeouts.command
        while True:
            self._check(writes=writes)
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
                self._opener = self._spawn(self._open_more())
            await self._wait(ends - _now())

    async def _open_more(self) -> None:
        """Opens connections, one after the other, while calls wait for one: they go on with any that is free before."""
        try:
            while self._waiting and self._capacity.allows_one_more(self._open):
                self._capacity.opening_since = _now()
                if (new_connection := await self._connect()) is None:
                    return
                self._release(new_connection)
        finally:
            self._opener = None
            self._capacity.opening_since = inf

    async def _connect(self) -> "Connection | None":
        """Opens a connection; None where it is worth to look again: the server has no room, or was seen meanwhile."""
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
                    self._suspect(str(error))
                return None
            if isinstance(error, StoreUnavailable) and not self._mark_unavailable(error.cause or str(error), began):
                return None
            raise
        self._seen = _now()
        return connection

    async def _wait(self, seconds: float) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout(seconds):
                await waiter
        except TimeoutError:
            raise self.database.unavailable(f"all {self._size} connections have been busy for too long") from None
        finally:
            with suppress(ValueError):
                self._waiting.remove(waiter)

    def _release(self, connection: Connection) -> None:
        if connection.is_closed() or self._unavailable is not None:
            connection.terminate()
            self._open -= 1
        elif self._waiting and self._capacity.should_close_one(self._open):
            self._close_one(connection)
        else:
            self._idle.push(connection)
        self._wake()

    def _close_one(self, connection: Connection) -> None:
        self._open -= 1
        self._spawn(connection.close(timeout=1))

    def _wake(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _check(self, *, writes: bool) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed")
        if (cause := self._unavailable or (self._unwritable if writes else None)) is not None:
            raise StoreUnavailable(cause)

    def _suspect(self, cause: str) -> None:
        """Probes the server in a task: one call that took too long is no sign that it is away."""
        known = self._verification is not None or self._unavailable is not None or self._unwritable is not None
        if not known and not self._closed:
            self._verification = self._spawn(self._verify(cause))

    async def _verify(self, cause: str) -> None:
        """Probes reads, then writes: what is not completed within `verify` seconds fails at once from now on."""
        began, seconds = _now(), self.database.timeouts.verify
        connection: Connection | None = None
        try:
            async with asyncio.timeout(seconds):
                connection = self._idle.pop() if self._idle else await self._open_one()
                await connection.execute("SELECT 1")
            cause, began = self._cannot_write(), inf
            async with asyncio.timeout(seconds):
                await _probe_write(connection)
        except Exception as error:
            if outage(error) is None:
                raise
            if connection is not None:
                connection.terminate()
            if began < inf:
                self._mark_unavailable(cause, began)
            else:
                self._unwritable = cause
                self._try_reconnect()
        finally:
            self._verification = None
            if connection is not None:
                self._release(connection)

    async def _open_one(self) -> Connection:
        connection = await self.database.connect()
        self._open += 1
        return connection

    def _mark_unavailable(self, cause: str, began: float) -> bool:
        """Declares the server away: nobody waits for it any more, and a task looks for it.

        What `began` before the server was last seen is no news; then False is returned.
        """
        if began < self._seen:
            return False
        if self._unavailable is not None or self._closed:
            return True
        self._unavailable = cause if cause.startswith(self.database.name) else f"{self.database.name}: {cause}"
        self._fail_waiting(self._unavailable)
        for connection in self._idle.clear():
            connection.terminate()
            self._open -= 1
        self._try_reconnect()
        return True

    def _try_reconnect(self) -> None:
        if not self._closed and (self._prober is None or self._prober.done()):
            self._prober = self._spawn(self._probe())

    def _cannot_write(self) -> str:
        return f"{self.database.name}: {_UNWRITABLE}"

    def _fail_waiting(self, cause: str) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(StoreUnavailable(cause))
        self._waiting.clear()

    async def _probe(self) -> None:
        """Tries to connect and to write until the server is back."""
        while not self._closed:
            await asyncio.sleep(self.database.timeouts.probe * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
            try:
                connection = await self.database.connect()
            except StoreUnavailable as error:
                self._unavailable = error.cause or str(error)
                continue
            self._unavailable, self._seen = None, _now()
            self._unwritable = self._cannot_write()
            try:
                await _probe_write(connection)
            except Exception as error:
                if outage(error) is None:
                    raise
            else:
                self._unavailable = self._unwritable = None
                self._open += 1
                self._release(connection)
                return
            finally:
                if self._unwritable is not None:
                    connection.terminate()

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited for it has been told; nobody may be left who does


async def _probe_write(connection: Connection) -> None:
    await connection.execute(_WRITE, timeout=_MAX_PROBE_SECONDS)


def _now() -> float:
    return asyncio.get_running_loop().time()
