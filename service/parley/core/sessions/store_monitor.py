"""Watches whether the store is there."""

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
    """Checks the store about every second, and tells `on_change` when it has gone (False) and when it is back (True).

    A store that says nothing for `timeout_seconds` has gone. `is_available` is what was found last.
    """

    def __init__(
        self,
        store: Store,
        on_change: Callable[[bool], Awaitable[None]],
        interval_seconds: float = _INTERVAL_SECONDS,
        timeout_seconds: float = _TIMEOUT_SECONDS,
    ) -> None:
        self._store = store
        self._on_change = on_change
        self._timeout = timeout_seconds
        self.is_available = True
        self._task = PeriodicTask("the watch over the store", self.check, interval_seconds)

    def start(self) -> None:
        """Begins to watch a store that is there."""
        self._task.start()

    async def stop(self) -> None:
        """Watches no more."""
        await self._task.stop()

    async def check(self) -> None:
        """Looks once."""
        cause = await self._cause()
        if (cause is None) == self.is_available:
            return
        self.is_available = cause is None
        if self.is_available:
            _log.info("the store is back")
        else:
            _log.error("the store is away", cause=cause)
        await self._on_change(self.is_available)

    async def _cause(self) -> str | None:
        """Returns why the store is away; None where it is there."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._store.check()
        except StoreUnavailable as error:
            return error.cause or error.message
        except TimeoutError:
            return f"it has not answered for {self._timeout} s"
        return None
