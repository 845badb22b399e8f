"""Whether the PostgreSQL server is reachable and completes writes."""

import asyncio
import random
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from math import inf
from typing import Any, Protocol, TypeVar

from parley.core.errors import StoreMisconfigured, StoreUnavailable
from parley.core.ports.statistics import StoreStatistics
from parley.stores.postgres.database import Connection, Database, LostSchema, outage

T = TypeVar("T")

_MAX_WAITING = 1000
_MAX_WAITING_LOOKUPS = 100  # of keys: anyone can cause them
# An outage that has lasted this many times `Timeouts.wait` is no failover: calls no longer wait for its end.
_LONG_OUTAGE = 3
_MAX_PROBE_SECONDS = 15.0  # a hanging write probe is aborted after this time and repeated
_UNWRITABLE = "it answers reads, and does not complete writes; see whether a synchronous standby is gone"
# Waits for the disk and for synchronous standbys as the commit of a turn does, and needs no table.
_WRITE = "SELECT pg_logical_emit_message(true, 'parley', '')"


class Connections(Protocol):
    """The part of a pool that the availability check uses."""

    async def borrow(self) -> Connection:
        """Returns an idle connection, or opens one. Raises StoreUnavailable."""
        ...

    def add(self, connection: Connection) -> None:
        """Adds an open connection to the pool."""
        ...

    def release(self, connection: Connection) -> None:
        """Returns a borrowed connection to the pool."""
        ...

    def abort(self) -> None:
        """Wakes all waiting calls and closes the idle connections."""
        ...

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Runs a coroutine in a task of the pool."""
        ...


class Availability:
    """The availability of the server for reads and writes.

    While the server is unavailable, one task probes it. A server that answers reads and does not complete writes, for
    example because a synchronous standby is gone, is unavailable only for writes. One slow call is not a failure of
    the server: it starts a verification, and the server is unavailable only if the verification fails too.

    Calls may wait for the end of an outage, such as a failover: `Timeouts.wait` bounds the time of each, `_MAX_WAITING`
    their number, `_MAX_WAITING_LOOKUPS` that of the lookups of keys among them. An outage that needs the operator, such
    as a wrong password, and a long one fail all calls at once.

    During an outage, leases expire although their holders run. For `Timeouts.lease_grace` afterwards, no call ends
    them.
    """

    def __init__(self, database: Database, connections: Connections, statistics: StoreStatistics) -> None:
        """Regards the server as available. `statistics` counts the calls that wait."""
        self._database = database
        self._statistics = statistics
        self._connections = connections
        self._unavailable: str | None = None
        self._unwritable: str | None = None
        self._since = 0.0
        self._needs_operator = False
        self._change: asyncio.Future[None] | None = None
        self._verification: asyncio.Task[None] | None = None
        self._prober: asyncio.Task[None] | None = None
        self._last_success = 0.0
        self._recovered = -inf
        self._lookups = 0
        self._closed = False

    @property
    def is_reachable(self) -> bool:
        """Whether the server answers reads."""
        return self._unavailable is None

    def is_available(self, *, writes: bool) -> bool:
        """Returns whether the server answers reads, or also completes writes."""
        return self._cause(writes=writes) is None

    @property
    def is_writable(self) -> bool:
        """Whether the server completes writes, as far as it answers at all."""
        return self._unwritable is None

    def check(self, *, writes: bool) -> None:
        """Raises StoreUnavailable if the server is unavailable or the pool is closed."""
        if (cause := self._cause(writes=writes)) is not None:
            raise StoreUnavailable(cause)

    async def wait(self, ends: float, *, writes: bool, is_lookup: bool = False) -> bool:
        """Waits until the server is available.

        Args:
            ends: The latest time of the event loop's clock until which the call waits.
            writes: Whether the server must complete writes.
            is_lookup: Whether the call looks up a key, so that its caller is not known.

        Returns:
            Whether the server was unavailable.

        Raises:
            StoreUnavailable: The server is unavailable until `ends`, or the call may not wait.
        """
        if self._cause(writes=writes) is None:
            return False
        with self._counted(is_lookup=is_lookup):
            while (cause := self._cause(writes=writes)) is not None:
                if not self._may_wait(ends, is_lookup=is_lookup):
                    raise StoreUnavailable(cause)
                await asyncio.wait({self._next_change()}, timeout=min(ends, self._long_at()) - _now())
        return True

    def lease_grace(self) -> float:
        """Returns the remaining seconds in which expired leases must not be ended, because of an outage; 0 if none."""
        seconds = self._database.timeouts.lease_grace
        if not self.is_available(writes=True):
            return seconds  # reads succeed before writes do
        return max(0.0, self._recovered + seconds - _now())

    def start_lease_grace(self) -> None:
        """Records the end of an outage, or that there is or may have been one."""
        self._recovered = _now()

    async def wait_verified(self) -> None:
        """Waits for a running verification, which ends sooner than a call to a hanging server."""
        if self._verification is not None:
            await asyncio.wait({self._verification})

    def record_success(self, time: float) -> None:
        """Records that the server was available at a time of the event loop's clock."""
        self._last_success = max(self._last_success, time)

    def suspect(self, cause: str) -> None:
        """Starts a verification after a slow call."""
        known = self._verification is not None or self._unavailable is not None or self._unwritable is not None
        if not known and not self._closed:
            self._verification = self._connections.spawn(self._verify(cause))

    def mark_unavailable(self, cause: str, began: float, error: Exception | None = None) -> bool:
        """Marks the server as unavailable, wakes the calls that wait for a connection and starts the probes.

        Args:
            cause: Why the server is unavailable.
            began: The start of the failed operation, a time of the event loop's clock.
            error: The error of a new connection.

        Returns:
            False if a success since `began` makes the failure obsolete.
        """
        if began < self._last_success:
            return False
        if self._unavailable is not None or self._closed:
            return True
        name = self._database.name
        self._unavailable = cause if cause.startswith(name) else f"{name}: {cause}"
        self._begin_outage(error)
        self._connections.abort()
        self._start_prober()
        return True

    def close(self) -> None:
        """Stops the probes and fails all later checks."""
        self._closed = True
        self._report_change()
        if self._prober is not None:
            self._prober.cancel()

    async def _verify(self, cause: str) -> None:
        """Probes reads, then writes. Marks as unavailable what is not completed within `Timeouts.verify`."""
        began, seconds = _now(), self._database.timeouts.verify
        connection: Connection | None = None
        try:
            async with asyncio.timeout(seconds):
                connection = await self._connections.borrow()
                await connection.execute("SELECT 1")
            cause, began = self._cannot_write(), inf
            async with asyncio.timeout(seconds):
                await probe_write(connection)
        except Exception as error:
            if outage(error) is None:
                raise
            if connection is not None:
                connection.terminate()
            if began < inf:
                self.mark_unavailable(cause, began)
            else:
                self._unwritable = cause
                self._begin_outage(None)
                self._start_prober()
        finally:
            self._verification = None
            if connection is not None:
                self._connections.release(connection)

    def _cause(self, *, writes: bool) -> str | None:
        """Returns why the server cannot be used; None if it can."""
        if self._closed:
            return "the store is closed"
        return self._unavailable or (self._unwritable if writes else None)

    def _begin_outage(self, error: Exception | None) -> None:
        self._since, self._needs_operator = _now(), _needs_operator(error)

    def _may_wait(self, ends: float, *, is_lookup: bool) -> bool:
        """Returns whether a call, which is counted already, may wait for a change."""
        is_lasting = self._closed or self._needs_operator or _now() >= self._long_at()
        has_place = self._statistics.waiting <= _MAX_WAITING
        if is_lookup:
            has_place = has_place and self._lookups <= _MAX_WAITING_LOOKUPS
        return has_place and not is_lasting and _now() < ends

    def _long_at(self) -> float:
        return self._since + _LONG_OUTAGE * self._database.timeouts.wait

    @contextmanager
    def _counted(self, *, is_lookup: bool) -> Iterator[None]:
        """Counts a call that waits, and whether the server was available at its end."""
        self._statistics.waiting += 1
        self._lookups += is_lookup
        try:
            yield
            self._statistics.waits_ended += 1
        except StoreUnavailable:
            self._statistics.waits_failed += 1
            raise
        finally:
            self._statistics.waiting -= 1
            self._lookups -= is_lookup

    def _next_change(self) -> asyncio.Future[None]:
        """Returns the future of the next change of the availability."""
        if self._change is None:
            self._change = asyncio.get_running_loop().create_future()
        return self._change

    def _report_change(self) -> None:
        change, self._change = self._change, None
        if change is not None:
            change.set_result(None)

    def _start_prober(self) -> None:
        if not self._closed and (self._prober is None or self._prober.done()):
            self._prober = self._connections.spawn(self._probe())

    def _cannot_write(self) -> str:
        return f"{self._database.name}: {_UNWRITABLE}"

    async def _probe(self) -> None:
        """Connects and writes periodically until both succeed."""
        while not self._closed:
            await asyncio.sleep(self._database.timeouts.probe * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
            try:
                connection = await self._database.connect()
            except StoreUnavailable as error:
                self._unavailable, self._needs_operator = error.cause or str(error), _needs_operator(error)
                if self._needs_operator:
                    self._report_change()
                continue
            self._unavailable, self._last_success, self._needs_operator = None, _now(), False
            self._unwritable = self._cannot_write()
            self._report_change()
            try:
                await probe_write(connection)
            except Exception as error:
                if outage(error) is None:
                    raise
            else:
                self._unavailable = self._unwritable = None
                self.start_lease_grace()
                self._connections.add(connection)
                self._report_change()
                return
            finally:
                if self._unwritable is not None:
                    connection.terminate()


def _needs_operator(error: Exception | None) -> bool:
    """Returns whether the server is there and will not become available by itself."""
    return isinstance(error, StoreMisconfigured | LostSchema)


async def probe_write(connection: Connection) -> None:
    """Completes a write that changes no table."""
    await connection.execute(_WRITE, timeout=_MAX_PROBE_SECONDS)


def _now() -> float:
    return asyncio.get_running_loop().time()
