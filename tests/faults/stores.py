"""The stores of the fault scenarios."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from tests.faults.scenarios import Database
from tests.postgres import Server, serving

STORES = ("sqlite", "postgres")


class _Postgres:
    """A PostgreSQL that can be killed while others are waited for."""

    def __init__(self, server: Server) -> None:
        self.url = server.empty()
        self._server = server

    async def kill(self) -> None:
        """Kills all its processes."""
        await asyncio.to_thread(self._server.kill)

    async def start(self) -> None:
        """Starts it on the same data and waits until it serves."""
        await asyncio.to_thread(self._server.start)

    async def freeze(self, seconds: float) -> None:
        """Suspends all its processes for `seconds`."""
        self._server.freeze()
        try:
            await asyncio.sleep(seconds)
        finally:
            self._server.thaw()


@contextmanager
def database(store: str) -> Iterator[Database | None]:
    """Runs the database server of a store: PostgreSQL, or none for SQLite."""
    if store == "sqlite":
        yield None
        return
    with serving() as server:
        yield _Postgres(server)
