"""Opens the store at startup, and waits for an unreachable database server; calls get 503 meanwhile."""

import asyncio
from math import inf
from pathlib import Path

from parley.config import SqliteConfig, StoreConfig
from parley.core.errors import StoreMisconfigured, StoreUnavailable
from parley.supervisor.errors import CommandError
from parley.supervisor.process import print_notice

_PAUSE_SECONDS = 1.0


class StoreStartup:
    """Creates a new store before the workers start, and waits for an unreachable server.

    Args:
        config: The configuration of the store.
        state_dir: The state folder.
        seconds: How long to wait; 0 for not at all, infinity for no limit.
    """

    def __init__(self, config: StoreConfig, state_dir: Path, seconds: float) -> None:
        self._config = config
        self._state_dir = state_dir
        self._seconds = seconds
        self.identity: str | None = None
        """The identity of the store, see `create_store`; None until it was available."""

    async def first_identity(self) -> str | None:
        """Opens the store; returns its identity, or None if it is not available yet.

        Raises:
            CommandError: The store is unusable, and waiting would not help.
        """
        try:
            await self._open()
        except StoreUnavailable as error:
            cause = error.cause or error.message
            if isinstance(error, StoreMisconfigured) or isinstance(self._config, SqliteConfig) or not self._seconds:
                raise CommandError(cause) from error
            limit = "" if self._seconds == inf else f" (waiting up to {self._seconds:.0f} s)"
            print_notice(f"the store is unavailable: {cause}; calls get 503 meanwhile{limit}")
        return self.identity

    async def end(self) -> None:
        """Waits until the store is available. Raises CommandError after the time limit, or if it is misconfigured."""
        ends = asyncio.get_running_loop().time() + self._seconds
        while self.identity is None:
            try:
                await self._open()
                print_notice("the store is available")
            except StoreUnavailable as error:
                is_late = asyncio.get_running_loop().time() > ends
                if is_late or isinstance(error, StoreMisconfigured):
                    raise CommandError(error.cause or error.message) from error
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _open(self) -> None:
        from parley.stores.open import create_store  # the workers are imported meanwhile

        self.identity = await create_store(self._config, self._state_dir)
