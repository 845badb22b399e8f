"""Answers scrapes of one worker on a Unix socket."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nConnection: close\r\n\r\n"
_REQUEST_SECONDS = 5.0


@asynccontextmanager
async def serving(prepare: Callable[[], None], registry: CollectorRegistry, socket: Path) -> AsyncIterator[None]:
    """Serves the metrics of a registry with HTTP, whatever the request.

    The text is made in a thread, which the event loop interrupts every half millisecond.

    Args:
        prepare: Called on the event loop before each text.
        registry: The metrics.
        socket: The socket to create, in a folder that others may not enter.
    """
    at_a_time = asyncio.Semaphore(1)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                await reader.readuntil(b"\r\n\r\n")
            async with at_a_time:
                prepare()
                text = await asyncio.to_thread(generate_latest, registry)
            writer.write(_HEAD + text)
            await writer.drain()
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            pass  # the reader has left
        finally:
            writer.close()

    server = await asyncio.start_unix_server(answer, str(socket))
    try:
        yield
    finally:
        server.close()
