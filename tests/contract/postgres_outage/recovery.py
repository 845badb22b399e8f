"""Timeouts of the outage tests, and the wait for a recovery."""

import asyncio
from contextlib import suppress

from parley.core.errors import StoreUnavailable
from parley.stores.postgres import PostgresStore, Timeouts

SHORT = Timeouts(connect=1.0, command=1.0, probe=0.05)


async def back(store: PostgresStore) -> None:
    """Waits until the store has recovered. Every error until then must be StoreUnavailable."""
    async with asyncio.timeout(60):
        while True:
            with suppress(StoreUnavailable):
                await store.check()
                return
            await asyncio.sleep(0.02)
