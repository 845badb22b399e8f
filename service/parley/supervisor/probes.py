"""Liveness checks of processes with an HTTP server on a Unix socket."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from parley.supervisor import ticks

_POLL_SECONDS = 0.02
_PROBE_SECONDS = 1.0  # between two liveness checks, and the longest time of one


async def poll(check: Callable[[], Awaitable[bool]]) -> None:
    """Polls until `check` returns true."""
    while not await check():  # noqa: ASYNC110 - another process has no event to wait for
        await asyncio.sleep(_POLL_SECONDS)


async def probe_socket(socket: Path, path: str, record_answer: Callable[[], None]) -> None:
    """Requests a page periodically, and records each answer. A missing socket is not the server's fault."""
    while True:
        with suppress(TimeoutError):
            async with asyncio.timeout(_PROBE_SECONDS):
                if await status_line(socket, path) or not os.path.exists(socket):  # noqa: PTH110, ASYNC240 - does not block
                    record_answer()
        await ticks.pause(_PROBE_SECONDS)


async def status_line(socket: Path, path: str) -> str:
    """Returns the first line of the response of an HTTP server; an empty one without a response."""
    try:
        reader, writer = await asyncio.open_unix_connection(str(socket))
    except OSError:
        return ""
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        return (await reader.readline()).decode(errors="replace")
    except OSError:
        return ""
    finally:
        writer.close()
