"""The queue of calls to a busy session, for models with `concurrent_turns: queue`."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from parley.core.errors import DeadlineExceeded, SessionBusy
from parley.core.ports import SessionStore, Turn

_MAX_WAIT = 1.0  # seconds of one wait for a release, in case its notification is lost


@dataclass(slots=True)
class _Waiters:
    """The calls that wait for one session; only the first polls the store."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    length: int = 0


class Queue:
    """Admits the calls of one worker to a session one after another, in order of arrival."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._waiters: dict[str, _Waiters] = {}

    @property
    def waiting(self) -> int:
        """The number of calls that wait for any session, the first of each included."""
        return sum(waiters.length for waiters in self._waiters.values())

    def length(self, session_id: str) -> int:
        """Returns how many calls wait for a session, the first included."""
        waiters = self._waiters.get(session_id)
        return waiters.length if waiters else 0

    async def wait(
        self, session_id: str, begin: Callable[[], Awaitable[Turn]], seconds: float, deadline: float | None
    ) -> Turn:
        """Begins a turn as soon as the session is free.

        Args:
            session_id: The id of the session.
            begin: Begins the turn; raises SessionBusy while the session is in use.
            seconds: The maximum wait.
            deadline: The caller's deadline, a time of the event loop's clock; None for none.

        Raises:
            SessionBusy: The session did not become free in time.
            DeadlineExceeded: The deadline passed.
            ParleyError: Any other error of `begin`.
        """
        timeout = asyncio.get_running_loop().time() + seconds
        until = timeout if deadline is None else min(timeout, deadline)
        try:
            async with self._at_head(session_id, until):
                return await self._begin(session_id, begin, until)
        except (TimeoutError, SessionBusy) as error:
            if until == deadline:
                raise DeadlineExceeded from error
            raise error if isinstance(error, SessionBusy) else SessionBusy(session_id) from error

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
        """Waits until all earlier calls have begun their turn or given up. Raises TimeoutError."""
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
