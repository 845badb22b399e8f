"""Waiting for the release of a session's lease."""

import asyncio
from collections.abc import Awaitable, Callable

_FIRST_PAUSE = 0.02
_MAX_PAUSE = 0.25
_GROWTH = 1.5


class LeaseWaiters:
    """The calls of this process that wait for a session. Polls for releases by other processes."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}

    def __len__(self) -> int:
        """Returns the number of waiting calls."""
        return sum(map(len, self._waiting.values()))

    def announce(self, session_id: str) -> None:
        """Wakes all calls that wait for the session."""
        for waiter in self._waiting.pop(session_id, ()):
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self, session_id: str, seconds: float, is_free: Callable[[], Awaitable[bool]]) -> None:
        """Returns once the session is announced or polled as free, at the latest after `seconds`."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(session_id, set()).add(waiter)
        try:
            async with asyncio.timeout(seconds):
                await self._wait_once(waiter, is_free)
        except TimeoutError:
            pass
        finally:
            self._forget(session_id, waiter)

    @staticmethod
    async def _wait_once(waiter: asyncio.Future[None], is_free: Callable[[], Awaitable[bool]]) -> None:
        pause = _FIRST_PAUSE
        while not waiter.done() and not await is_free():
            await asyncio.wait([waiter], timeout=pause)
            pause = min(pause * _GROWTH, _MAX_PAUSE)

    def _forget(self, session_id: str, waiter: asyncio.Future[None]) -> None:
        waiters = self._waiting.get(session_id, set())
        waiters.discard(waiter)
        if not waiters:
            self._waiting.pop(session_id, None)
