"""Waiting for a session's turn, where a model lets its callers wait."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from parley.core.errors import DeadlineExceeded, SessionBusy
from parley.core.ports import SessionStore, Turn

_MAX_WAIT = 1.0  # seconds for one wait of the store, whatever became of its notice


@dataclass(slots=True)
class _Waiters:
    """Those who wait for one session; only the first one asks the store."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    length: int = 0


class Queue:
    """Lets the callers of one worker into a session one after the other, in the order in which they came."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._waiters: dict[str, _Waiters] = {}

    def length(self, session_id: str) -> int:
        """Tells how many stand in line for a session, the first one included."""
        waiters = self._waiters.get(session_id)
        return waiters.length if waiters else 0

    async def wait(
        self, session_id: str, begin: Callable[[], Awaitable[Turn]], seconds: float, deadline: float | None
    ) -> Turn:
        """Begins a turn as soon as the session is free, for up to so many seconds.

        `begin` raises SessionBusy while it is not; `deadline` is the caller's, a time of the event loop's clock.
        Raises SessionBusy, DeadlineExceeded, and all that `begin` raises.
        """
        timeout = asyncio.get_running_loop().time() + seconds
        until = timeout if deadline is None else min(timeout, deadline)
        try:
            async with self._at_head(session_id, until):
                return await self._begin(session_id, begin, until)
        except (TimeoutError, SessionBusy) as error:
            if until == deadline:
                raise DeadlineExceeded from error
            raise SessionBusy(session_id) from error

    async def _begin(self, session_id: str, begin: Callable[[], Awaitable[Turn]], until: float) -> Turn:
        loop = asyncio.get_running_loop()
        while True:
            try:
                return await begin()
            except SessionBusy:
                remaining = until - loop.time()
                if remaining <= 0:
                    raise
                await self._store.wait_for_release(session_id, min(remaining, _MAX_WAIT))

    @asynccontextmanager
    async def _at_head(self, session_id: str, until: float) -> AsyncIterator[None]:
        """Waits until everybody who came before is in, or has left. Raises TimeoutError."""
        waiters = self._waiters.setdefault(session_id, _Waiters())
        waiters.length += 1
        try:
            async with asyncio.timeout_at(until):
                await waiters.lock.acquire()
            try:
                yield
            finally:
                waiters.lock.release()
        finally:
            waiters.length -= 1
            if not waiters.length:
                del self._waiters[session_id]
