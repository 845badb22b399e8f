"""Monitors whether the store is available."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from parley.core.background import PeriodicTask
from parley.core.errors import StoreUnavailable
from parley.core.ports import Store

_INTERVAL_SECONDS = 1.0
_TIMEOUT_SECONDS = 5.0

_log = structlog.get_logger()


class StoreMonitor:
    """Checks the store periodically and reports changes of its availability.

    Attributes:
        is_available: Whether the last check succeeded.
        cause: Why it failed; None if it succeeded.
    """

    def __init__(
        self,
        store: Store,
        on_change: Callable[[bool], Awaitable[None]],
        interval_seconds: float = _INTERVAL_SECONDS,
        timeout_seconds: float = _TIMEOUT_SECONDS,
    ) -> None:
        """Creates a monitor that is not started and regards the store as available.

        Args:
            store: The store to check.
            on_change: Receives False when the store becomes unavailable, and True when it is available again.
            interval_seconds: The pause between two checks.
            timeout_seconds: A check that takes longer counts as a failure.
        """
        self._store = store
        self._on_change = on_change
        self._timeout = timeout_seconds
        self.is_available = True
        self.cause: str | None = None
        self._task = PeriodicTask("store monitor", self.check, interval_seconds)

    def start(self) -> None:
        """Starts the periodic checks."""
        self._task.start()

    async def stop(self) -> None:
        """Stops the periodic checks."""
        await self._task.stop()

    async def check(self) -> None:
        """Checks the store once."""
        cause = self.cause = await self._cause()
        if (cause is None) == self.is_available:
            return
        self.is_available = cause is None
        if self.is_available:
            _log.info("the store is available again")
        else:
            _log.error("the store is unavailable", cause=cause)
        await self._on_change(self.is_available)

    async def _cause(self) -> str | None:
        """Returns why the store is unavailable; None if it is available."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._store.check()
        except StoreUnavailable as error:
            return error.cause or error.message
        except TimeoutError:
            return f"no answer within {self._timeout} s"
        return None
