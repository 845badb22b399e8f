"""A connection of the HTTP client."""

import asyncio
import gc
import weakref

from parley.backends.http.connection import Connection


async def test_a_closed_connection_gets_no_deadline() -> None:
    """A stream may set a deadline while it reads what a closed connection has received: no timer keeps that."""
    connection = Connection()
    connection.wait(asyncio.get_running_loop().time() + 100)
    kept = weakref.ref(connection)
    del connection
    gc.collect()
    assert kept() is None
