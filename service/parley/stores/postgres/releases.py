"""Waiting until a session is free: the database tells every process that listens."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from parley.core.errors import StoreUnavailable
from parley.stores.postgres.database import Database, outage
from parley.stores.postgres.pool import Pool
from parley.stores.postgres.rows import Now, now
from parley.stores.postgres.turns import CHANNEL

_POLL_LISTENING = 5.0  # all that it finds is what nobody tells: a listener that is cut off without knowing
_POLL_DEAF = 0.25
_RECONNECT_SECONDS = 0.5
_LEAST = 0.01

# Only a lease that somebody waits for is told of: PostgreSQL lets one transaction at a time commit that notifies, and
# turns would stand in line for the disk. The mark is no news to keep: it need not be on disk.
_AWAIT = f"""
WITH clock AS MATERIALIZED (SELECT {now(2)} AS now, set_config('synchronous_commit', 'off', true)), marked AS (
  UPDATE parley.sessions SET awaited = lease_fence FROM clock
  WHERE id = $1 AND lease_expires > now AND awaited IS DISTINCT FROM lease_fence RETURNING id
)
SELECT lease_expires - now FROM clock, parley.sessions WHERE id = $1 AND lease_expires > now
"""


class LeaseWaiters:
    """Wakes those who wait for a session, by one connection that listens for the whole process."""

    def __init__(self, database: Database, pool: Pool, clock: Callable[[], Now]) -> None:
        self._database = database
        self._pool = pool
        self._clock = clock
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._listener: asyncio.Task[None] | None = None
        self._listening = False

    async def wait(self, session_id: str, seconds: float) -> None:
        """Returns once the session may be free, at the latest after so many seconds. Raises StoreUnavailable."""
        if self._listener is None and not self._database.pooled:  # LISTEN needs a session of the server
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
        """Tells whether the session is free; where it is not, waits until it is worth to look again."""
        # Before the question: what is told between the two must not be missed.
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(session_id, set()).add(waiter)
        try:
            lease = await self._pool.read(lambda db: db.fetchval(_AWAIT, session_id, self._clock()))
            if lease is not None:
                poll = _POLL_LISTENING if self._listening else _POLL_DEAF
                await asyncio.wait([waiter], timeout=min(poll, max(lease, _LEAST)))
            return lease is None
        finally:
            self._forget(session_id, waiter)

    def _forget(self, session_id: str, waiter: asyncio.Future[None]) -> None:
        waiters = self._waiting.get(session_id, set())
        waiters.discard(waiter)
        if not waiters:
            self._waiting.pop(session_id, None)

    async def _listen(self) -> None:
        """Listens for as long as the store is open."""
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
            self._wake_all()  # what was released before is not told again
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
