"""Waiting for a session's turn, where a model lets its callers wait."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from parley.core.errors import DeadlineExceeded, SessionBusy
from parley.core.ports import SessionStore, Turn

_LONGEST_WAIT = 1.0  # seconds for one wait of the store, whatever became of its notice


@dataclass(slots=True)
class _Line:
    """Those who wait for one session; only the first one asks the store."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    length: int = 0


class Queue:
    """Lets the callers of one worker into a session one after the other, in the order in which they came."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._lines: dict[str, _Line] = {}

    def length(self, session_id: str) -> int:
        """Tells how many stand in line for a session, the first one included."""
        line = self._lines.get(session_id)
        return line.length if line else 0

    async def wait(
        self, session_id: str, begin: Callable[[], Awaitable[Turn]], seconds: float, deadline: float | None
    ) -> Turn:
        """Begins a turn as soon as the session is free, for up to so many seconds.

        `begin` raises SessionBusy while it is not; `deadline` is the caller's, a time of the event loop's clock.
        Raises SessionBusy, DeadlineExceeded, and all that `begin` raises.
        """
        patience = asyncio.get_running_loop().time() + seconds
        until = patience if deadline is None else min(patience, deadline)
        try:
            async with self._first_in_line(session_id, until):
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
                left = until - loop.time()
                if left <= 0:
                    raise
                await self._store.wait_for_release(session_id, min(left, _LONGEST_WAIT))

    @asynccontextmanager
    async def _first_in_line(self, session_id: str, until: float) -> AsyncIterator[None]:
        """Waits until everybody who came before is in, or has left. Raises TimeoutError."""
        line = self._lines.setdefault(session_id, _Line())
        line.length += 1
        try:
            async with asyncio.timeout_at(until):
                await line.lock.acquire()
            try:
                yield
            finally:
                line.lock.release()
        finally:
            line.length -= 1
            if not line.length:
                del self._lines[session_id]
