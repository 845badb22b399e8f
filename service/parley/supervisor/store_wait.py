"""Waits at startup for an unreachable database server; calls get 503 meanwhile."""

import asyncio
from pathlib import Path

from parley.config import SqliteConfig, StoreConfig
from parley.core.errors import StoreMisconfigured, StoreUnavailable
from parley.stores.open import open_store
from parley.supervisor.errors import CommandError
from parley.supervisor.process import print_notice

_PAUSE_SECONDS = 1.0


class StoreStartup:
    """Creates a new store before the workers start, and waits for an unreachable server.

    Args:
        config: The configuration of the store.
        state_dir: The state folder.
        seconds: How long to wait; 0 for not at all.
    """

    def __init__(self, config: StoreConfig, state_dir: Path, seconds: float) -> None:
        self._config = config
        self._state_dir = state_dir
        self._seconds = seconds
        self._is_available = False

    async def begin(self) -> None:
        """Opens the store once. Raises CommandError if the store is unusable and waiting would not help."""
        try:
            await self._open()
        except StoreUnavailable as error:
            cause = error.cause or error.message
            if isinstance(error, StoreMisconfigured) or isinstance(self._config, SqliteConfig) or not self._seconds:
                raise CommandError(cause) from error
            print_notice(
                f"the store is unavailable: {cause}; calls get 503 meanwhile (waiting up to {self._seconds:.0f} s)"
            )

    async def end(self) -> None:
        """Waits until the store is available. Raises CommandError after the time limit, or if it is misconfigured."""
        ends = asyncio.get_running_loop().time() + self._seconds
        while not self._is_available:
            try:
                await self._open()
                print_notice("the store is available")
            except StoreUnavailable as error:
                is_late = asyncio.get_running_loop().time() > ends
                if is_late or isinstance(error, StoreMisconfigured):
                    raise CommandError(error.cause or error.message) from error
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _open(self) -> None:
        async with open_store(self._config, self._state_dir) as store:
            await store.check()
        self._is_available = True
