"""How floods send: headers, connections, and bodies that do not end."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tests.edge.security.probe.http2 import Connection, Header

CHAT = "/v1/chat/completions"
CREATE = "/parley.v1.ChatCompletions/CreateChatCompletion"
FILES = ("/openapi.json", "/parley.binpb", "/docs/search.json")
"""The static files of a size that does not depend on the build."""
STRANGER = "127.0.0.9"
"""The address of a caller of static files; the callers who are measured have another one."""
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Target:
    """The addresses of both listeners (`127.0.0.1:8080`), and a valid key for floods of a caller."""

    rest: str
    grpc: str
    key: str = ""


def rest_headers(target: Target, *more: Header) -> list[Header]:
    """Returns the headers of a completion over REST."""
    fixed = [(":method", "POST"), (":scheme", "http"), (":authority", target.rest), (":path", CHAT)]
    return [*fixed, ("content-type", "application/json"), *more]


def grpc_headers(target: Target, *more: Header, path: str = CREATE) -> list[Header]:
    """Returns the headers of a gRPC call, by default of a completion."""
    fixed = [(":method", "POST"), (":scheme", "http"), (":authority", target.grpc), (":path", path)]
    return [*fixed, ("content-type", "application/grpc"), ("te", "trailers"), *more]


def file_headers(target: Target, path: str) -> list[Header]:
    """Returns the headers of a request for a static file."""
    return [(":method", "GET"), (":scheme", "http"), (":authority", target.rest), (":path", path)]


def authorization(key: str) -> Header:
    """Returns the header of an API key."""
    return ("authorization", f"Bearer {key}")


async def connect(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Opens a connection to `127.0.0.1:8080`. Raises OSError."""
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def forever(attempt: Callable[[], Awaitable[None]], times: int) -> None:
    """Repeats an attempt without end, several at a time; a connection that the server closes is opened again."""

    async def repeat() -> None:
        while True:
            try:
                await attempt()
            except (OSError, asyncio.IncompleteReadError, ValueError, IndexError):
                await asyncio.sleep(0.05)

    await asyncio.gather(*(repeat() for _ in range(times)))


async def unfinished(address: str, headers: list[Header], streams: int, size: int, prefix: bytes = b"") -> None:
    """Sends `size` bytes on each of the streams, and again on a new connection when the server has ended them all."""
    part = bytes(64 * 1024)

    async def send(connection: Connection, stream: int) -> None:
        rest = size
        if prefix:
            await connection.send_body(stream, prefix)
        while rest > 0 and await connection.send_body(stream, part[: min(rest, len(part))]):
            rest -= len(part)

    async def attempt() -> None:
        connection = await Connection.open(address)
        try:
            begun = [connection.request(headers) for _ in range(min(streams, connection.max_streams))]
            await asyncio.gather(*(send(connection, stream) for stream in begun))
            while not connection.closed.is_set() and not connection.ended.issuperset(begun):
                await asyncio.sleep(0.05)
        finally:
            await connection.close()

    await forever(attempt, 1)
