"""Floods: what a stranger can send. Each function floods until it is cancelled; its docstring describes the flood.

keyed.py has the floods of a caller with a valid key.

`python -m tests.edge.security.probe.floods NAME REST GRPC` runs one in a process of its own. A stranger has another
machine; this process shares the processors with Parley. It gets only the time that no other process wants
(`SCHED_IDLE`), so that the cost of sending is not taken for the cost of receiving. While Parley uses all processors, a
flood is slower than that of a stranger.
"""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable

from tests.edge.security.probe import keyed
from tests.edge.security.probe.http2 import CONTINUATION, HEADERS, Connection, Header, encode, frame
from tests.edge.security.probe.sending import (
    CHAT,
    FILES,
    MIB,
    STRANGER,
    Target,
    authorization,
    connect,
    file_headers,
    forever,
    grpc_headers,
    rest_headers,
    unfinished,
)

_PAUSE_SECONDS = 1.0
_WRONG = "sk-" + "A" * 43


Flood = Callable[[Target], Awaitable[None]]


async def json_bodies(target: Target, connections: int = 2) -> None:
    """8 MB of `{"messages":[{},{},…]}` without a key, one after the other on two connections."""
    body = b'{"model":"m","messages":[' + b"{}," * 2_700_000 + b"{}]}"
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"

    async def post() -> None:
        reader, writer = await connect(target.rest)
        writer.write(head.encode() + body)
        await writer.drain()
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    await forever(post, connections)


async def unfinished_streams(target: Target, streams: int = 60) -> None:
    """60 streams on one HTTP/2 connection, each with 8 MiB of a body that does not end, without a key."""
    await unfinished(target.rest, rest_headers(target), streams, 8 * MIB - 1)


async def unfinished_calls(target: Target, streams: int = 8) -> None:
    """8 gRPC calls on one connection, each with 31 MiB of a message of 32 MiB, without a key."""
    await unfinished(target.grpc, grpc_headers(target), streams, 31 * MIB, prefix=b"\0" + (32 * MIB).to_bytes(4, "big"))


async def unfinished_headers(target: Target, connections: int = 200) -> None:
    """200 HTTP/2 connections to both listeners, each with 400 KiB of a header block that does not end."""

    async def begin(address: str, headers: list[Header]) -> None:
        connection = await Connection.open(address)
        block = encode([*headers, *((f"x-{number}", "x" * 16_000) for number in range(25))])
        connection.send(frame(HEADERS, 0, 1, block[:16_384]))
        for place in range(16_384, len(block) - 16_384, 16_384):
            connection.send(frame(CONTINUATION, 0, 1, block[place : place + 16_384]))
            await connection.flush()
        await connection.closed.wait()
        await connection.close()

    half = max(1, connections // 2)
    await asyncio.gather(
        forever(lambda: begin(target.rest, rest_headers(target)), half),
        forever(lambda: begin(target.grpc, grpc_headers(target)), half),
    )


async def slow_headers(target: Target, connections: int = 300) -> None:
    """300 connections whose request headers arrive one byte a second."""
    await _slowly(target, connections, f"GET /v1/models HTTP/1.1\r\nhost: {target.rest}\r\nx-slow: ")


async def slow_bodies(target: Target, connections: int = 300) -> None:
    """300 connections whose request body arrives one byte a second, with a key of the right form."""
    head = f"POST {CHAT} HTTP/1.1\r\nhost: {target.rest}\r\ncontent-type: application/json\r\n"
    await _slowly(target, connections, f"{head}authorization: Bearer {_WRONG}\r\ncontent-length: 60000\r\n\r\n")


async def headers_only(target: Target, streams: int = 2500) -> None:
    """2,500 gRPC streams, as many on each connection as it allows, which send headers and never a message."""
    connections: list[Connection] = []
    opened = 0
    while opened < streams:
        connection = await Connection.open(target.grpc)
        connections.append(connection)
        for _ in range(min(connection.max_streams, 100, streams - opened)):
            connection.request(grpc_headers(target, authorization(_WRONG)))
            opened += 1
        await connection.flush()
    await asyncio.Event().wait()


async def silent_connections(target: Target, connections: int = 1000) -> None:
    """1,000 connections to both listeners; half send nothing, half no more than the preface of HTTP/2."""
    for place in range(connections // 4):
        for address in (target.rest, target.grpc):
            _HELD.append(await connect(address))
            _HELD.append(await Connection.open(address))
        if place % 10 == 0:
            await asyncio.sleep(0)
    await asyncio.Event().wait()


async def rapid_resets(target: Target, connections: int = 4) -> None:
    """Streams that are reset as soon as they have begun (CVE-2023-44487), on four connections of both listeners."""

    async def reset(address: str, headers: list[Header]) -> None:
        connection = await Connection.open(address)
        for _ in range(100):
            for _ in range(50):
                connection.reset(connection.request(headers))
            await connection.flush()
            await asyncio.sleep(0.01)
            if connection.closed.is_set():
                break
        await connection.close()

    half = max(1, connections // 2)
    await asyncio.gather(
        forever(lambda: reset(target.rest, rest_headers(target, authorization(_WRONG))), half),
        forever(lambda: reset(target.grpc, grpc_headers(target, authorization(_WRONG))), half),
    )


async def unread_files(target: Target, connections: int = 50) -> None:
    """Large static files on 99 streams of each of 50 HTTP/2 connections, whose client does not read them."""

    async def request() -> None:
        connection = await Connection.open(target.rest, STRANGER)
        try:
            while not connection.closed.is_set():
                begun = [connection.request(file_headers(target, path), end=True) for path in FILES * 33]
                await connection.flush()
                while not connection.closed.is_set() and not connection.ended.issuperset(begun):
                    await asyncio.sleep(0.05)
        finally:
            await connection.close()

    await forever(request, connections)


async def wrong_keys(target: Target, connections: int = 4) -> None:
    """Small complete calls with a wrong key, as fast as they are answered, on four connections over REST."""
    body = b'{"model":"m","messages":[{"role":"user","content":"Hi"}]}'
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {_WRONG}\r\ncontent-type: application/json\r\n"
    request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body

    async def call() -> None:
        reader, writer = await connect(target.rest)
        for _ in range(1500):
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        writer.transport.abort()

    await forever(call, connections)


FLOODS: dict[str, Flood] = {
    flood.__name__.replace("_", "-"): flood
    for flood in (
        json_bodies,
        unfinished_streams,
        unfinished_calls,
        unfinished_headers,
        slow_headers,
        slow_bodies,
        headers_only,
        silent_connections,
        rapid_resets,
        unread_files,
        wrong_keys,
        keyed.keyed_streams,
        keyed.keyed_calls,
        keyed.keyed_bodies,
        keyed.keyed_values,
        keyed.keyed_texts,
    )
}
_HELD: list[object] = []


async def _slowly(target: Target, connections: int, head: str) -> None:
    """Sends the head and then a byte a second, on each of the connections, which are opened again when they close."""

    async def trickle() -> None:
        _, writer = await connect(target.rest)
        writer.write(head.encode())
        while not writer.transport.is_closing():
            await asyncio.sleep(_PAUSE_SECONDS)
            writer.write(b"1")
            await writer.drain()

    await forever(trickle, connections)


def main() -> None:
    """Runs the flood of the command line until the process is killed."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    name, *addresses = sys.argv[1:]
    asyncio.run(_run(FLOODS[name], Target(*addresses)))


async def _run(flood: Flood, target: Target) -> None:
    await flood(target)


if __name__ == "__main__":
    main()
