"""Timeouts of the outage tests, the wait for a recovery, and a missing standby."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from parley.core.errors import StoreUnavailable
from parley.stores.postgres import PostgresStore, Timeouts
from tests.postgres import Server
from tests.processes import until

SHORT = Timeouts(connect=1.0, command=1.0, probe=0.05)
PATIENT = Timeouts(connect=1.0, command=5.0, probe=0.05, wait=20.0)


async def back(store: PostgresStore) -> None:
    """Waits until the store has recovered. Every error until then must be StoreUnavailable."""
    async with asyncio.timeout(60):
        while True:
            with suppress(StoreUnavailable):
                await store.check()
                return
            await asyncio.sleep(0.02)


@contextmanager
def without_its_standby(server: Server) -> Iterator[None]:
    """Makes every commit wait for a missing standby."""
    server.sql("ALTER SYSTEM SET synchronous_standby_names = 'gone'")
    server.sql("SELECT pg_reload_conf()")
    # A new connection with the setting shows that the server has applied it to all others.
    until(lambda: "gone" == server.sql("SHOW synchronous_standby_names"), "the setting")
    try:
        yield
    finally:
        server.sql("ALTER SYSTEM RESET synchronous_standby_names")
        server.sql("SELECT pg_reload_conf()")
