"""Answers scrapes of one worker, and its readiness, on a Unix socket."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from parley.metrics.prometheus import CollectorRegistry, text_of

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nConnection: close\r\n\r\n"
_REQUEST_SECONDS = 5.0


@asynccontextmanager
async def serving(
    prepare: Callable[[], None], registry: CollectorRegistry, socket: Path, checks: Callable[[], Mapping[str, str]]
) -> AsyncIterator[None]:
    """Serves the metrics of a registry with HTTP, whatever the request; for `/readyz` a line for each check.

    The text is made in a thread, which the event loop interrupts every half millisecond.

    Args:
        prepare: Called on the event loop before each text.
        registry: The metrics.
        socket: The socket to create, in a folder that others may not enter.
        checks: Returns the problem of each check, which is empty for one that passes.
    """
    at_a_time = asyncio.Semaphore(1)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                request = await reader.readuntil(b"\r\n\r\n")
            if request.startswith(b"GET /readyz "):
                writer.write(_HEAD + _lines(checks()))
            else:
                async with at_a_time:
                    prepare()
                    text = await asyncio.to_thread(text_of, registry)
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


def _lines(checks: Mapping[str, str]) -> bytes:
    """Returns a line for each check: its name and its problem."""
    return "".join(f"{name} {' '.join(problem.split())}\n" for name, problem in checks.items()).encode()
