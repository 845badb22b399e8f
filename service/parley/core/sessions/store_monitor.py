"""Watches whether the store is there."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from parley.core.background import Repeating
from parley.core.errors import StoreUnavailable
from parley.core.ports import Store

_EVERY_SECONDS = 1.0
_PATIENCE_SECONDS = 5.0

_log = structlog.get_logger()


class StoreWatch:
    """Checks the store about every second, and tells `changed` when it has gone (False) and when it is back (True).

    A store that says nothing for `patience_seconds` has gone. `is_there` is what was found last.
    """

    def __init__(
        self,
        store: Store,
        changed: Callable[[bool], Awaitable[None]],
        every_seconds: float = _EVERY_SECONDS,
        patience_seconds: float = _PATIENCE_SECONDS,
    ) -> None:
        self._store = store
        self._changed = changed
        self._patience = patience_seconds
        self.is_there = True
        self._task = Repeating("the watch over the store", self.check, every_seconds)

    def start(self) -> None:
        """Begins to watch a store that is there."""
        self._task.start()

    async def stop(self) -> None:
        """Watches no more."""
        await self._task.stop()

    async def check(self) -> None:
        """Looks once."""
        cause = await self._cause()
        if (cause is None) == self.is_there:
            return
        self.is_there = cause is None
        if self.is_there:
            _log.info("the store is back")
        else:
            _log.error("the store is away", cause=cause)
        await self._changed(self.is_there)

    async def _cause(self) -> str | None:
        """Returns why the store is away; None where it is there."""
        try:
            async with asyncio.timeout(self._patience):
                await self._store.check()
        except StoreUnavailable as error:
            return error.cause or error.message
        except TimeoutError:
            return f"it has not answered for {self._patience} s"
        return None
