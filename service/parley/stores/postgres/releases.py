"""Waiting for the release of a session's lease, of which the database notifies all listening processes."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from parley.core.errors import StoreUnavailable
from parley.stores.postgres.database import Database, outage
from parley.stores.postgres.pool import Pool
from parley.stores.postgres.rows import Now, now
from parley.stores.postgres.turn_statements import CHANNEL

_POLL_LISTENING = 5.0  # detects a connection that was lost without an error
_POLL_NOT_LISTENING = 0.25
_RECONNECT_SECONDS = 0.5
_MIN_WAIT = 0.01

# Only releases that a call waits for are notified: PostgreSQL commits transactions with a notification one at a time,
# which would serialize the commits of all turns. The mark `awaited` is temporary and need not be on disk.
_AWAIT = f"""
WITH clock AS MATERIALIZED (SELECT {now(2)} AS now, set_config('synchronous_commit', 'off', true)), marked AS (
  UPDATE parley.sessions SET awaited = lease_fence FROM clock
  WHERE id = $1 AND (lease_expires > now OR lease_expires IS NOT NULL AND $3::float8 > 0)
  AND awaited IS DISTINCT FROM lease_fence RETURNING id
)
SELECT greatest(lease_expires - now, $3::float8) FROM clock, parley.sessions
WHERE id = $1 AND (lease_expires > now OR lease_expires IS NOT NULL AND $3::float8 > 0)
"""


class LeaseWaiters:
    """The calls of this process that wait for a session, with one listening connection for all of them."""

    def __init__(self, database: Database, pool: Pool, clock: Callable[[], Now]) -> None:
        """Starts to listen at the first `wait`."""
        self._database = database
        self._pool = pool
        self._clock = clock
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._listener: asyncio.Task[None] | None = None
        self._listening = False

    async def wait(self, session_id: str, seconds: float) -> None:
        """Returns once the session may be free, at the latest after `seconds`. Raises StoreUnavailable."""
        if self._listener is None and not self._database.pooled:  # LISTEN needs a server session
            self._listener = asyncio.create_task(self._listen())
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not await self._wait_once(session_id):
                    pass

    async def close(self) -> None:
        """Stops listening."""
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.wait([self._listener])

    async def _wait_once(self, session_id: str) -> bool:
        """Returns whether the session is free; otherwise waits for a notification or the next poll."""
        # Registered before the query, so that a notification between the two is not missed.
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(session_id, set()).add(waiter)
        try:
            lease = await self._pool.read(
                lambda db: db.fetchval(_AWAIT, session_id, self._clock(), self._pool.lease_grace())
            )
            if lease is not None:
                poll = _POLL_LISTENING if self._listening else _POLL_NOT_LISTENING
                await asyncio.wait([waiter], timeout=min(poll, max(lease, _MIN_WAIT)))
            return lease is None
        finally:
            self._forget(session_id, waiter)

    def _forget(self, session_id: str, waiter: asyncio.Future[None]) -> None:
        waiters = self._waiting.get(session_id, set())
        waiters.discard(waiter)
        if not waiters:
            self._waiting.pop(session_id, None)

    async def _listen(self) -> None:
        """Listens until the store is closed."""
        while True:
            with suppress(StoreUnavailable):
                await self._listen_until_lost()
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _listen_until_lost(self) -> None:
        """Listens until the connection is lost."""
        connection = await self._database.connect()
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        try:
            await connection.add_listener(CHANNEL, self._on_notification)
            self._listening = True
            self._wake_all()  # earlier releases are not notified again
            while not connection.is_closed():
                with suppress(TimeoutError):
                    async with asyncio.timeout(_POLL_LISTENING):
                        await lost.wait()
                await connection.execute("SELECT 1")
        except Exception as error:
            if outage(error) is None:
                raise
        finally:
            self._listening = False
            connection.terminate()
            self._wake_all()

    def _on_notification(self, _connection: object, _pid: int, _channel: str, session_id: object) -> None:
        self._wake(self._waiting.get(str(session_id), ()))

    def _wake_all(self) -> None:
        for waiters in list(self._waiting.values()):
            self._wake(waiters)

    @staticmethod
    def _wake(waiters: "set[asyncio.Future[None]] | tuple[()]") -> None:
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
