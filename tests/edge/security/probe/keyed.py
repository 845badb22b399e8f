"""Floods of a caller with a valid key."""

from tests.edge.security.probe.sending import (
    CHAT,
    MIB,
    Target,
    authorization,
    connect,
    forever,
    grpc_headers,
    rest_headers,
    unfinished,
)


async def keyed_streams(target: Target, streams: int = 60) -> None:
    """60 streams on one HTTP/2 connection, each with 8 MiB of a body that does not end, with a valid key."""
    headers = rest_headers(target, authorization(target.key))
    await unfinished(target.rest, headers, streams, 8 * MIB - 1)


async def keyed_calls(target: Target, streams: int = 60) -> None:
    """60 gRPC calls on one connection, each with 7 of 8 MiB of a message, with a valid key."""
    headers = grpc_headers(target, authorization(target.key))
    await unfinished(target.grpc, headers, streams, 7 * MIB, prefix=b"\0" + (8 * MIB - 5).to_bytes(4, "big"))


async def keyed_bodies(target: Target, connections: int = 60) -> None:
    """60 connections of HTTP/1.1, each with 8 MiB of a body that does not end, with a valid key."""
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {8 * MIB}\r\n"
    part = b" " * (64 * 1024)

    async def post() -> None:
        reader, writer = await connect(target.rest)
        try:
            writer.write(f"{head}authorization: Bearer {target.key}\r\n\r\n".encode())
            for _ in range(127):
                writer.write(part)
                await writer.drain()
            await reader.read()
        finally:
            writer.transport.abort()

    await forever(post, connections)


async def keyed_values(target: Target, connections: int = 4) -> None:
    """6.4 MB of `{"stop":[1,1,…]}` with a valid key, one after the other on four connections."""
    body = b'{"model":"m","stop":[' + b"1," * 3_200_000 + b"1]}"
    await _bodies(target, body, connections)


async def keyed_texts(target: Target, connections: int = 20) -> None:
    """8 MB of text with a valid key, one after the other on 20 connections; the model does not exist."""
    body = b'{"model":"none","messages":[{"role":"user","content":"' + b"x" * 8_000_000 + b'"}]}'
    await _bodies(target, body, connections)


async def _bodies(target: Target, body: bytes, connections: int) -> None:
    """Sends complete bodies with a valid key, and reads the head of each response."""
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"

    async def post() -> None:
        reader, writer = await connect(target.rest)
        writer.write(f"{head}authorization: Bearer {target.key}\r\n\r\n".encode() + body)
        await writer.drain()
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    await forever(post, connections)
