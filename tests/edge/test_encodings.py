"""Compressed bodies: gzip is decoded within the limit of a body, other codings are rejected."""

import asyncio
import gzip
import json
import zlib
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from tests.edge.conftest import Edge
from tests.edge.errors import PATHS, message_of
from tests.edge.worker import Worker

pytestmark = pytest.mark.asyncio(loop_scope="session")

REQUEST = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
BODY = json.dumps(REQUEST).encode()
MIB = 2**20


def _headers(coding: str) -> dict[str, str]:
    return {"content-type": "application/json", "content-encoding": coding}


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "x-gzip"])
@pytest.mark.parametrize("stream", [False, True])
async def test_gzip_is_decoded(client: aiohttp.ClientSession, worker: Worker, coding: str, *, stream: bool) -> None:
    """The worker gets the decoded body, and its `stream` applies."""
    data = gzip.compress(json.dumps(REQUEST | {"stream": stream, "unknown": 1}).encode())
    async with client.post(PATHS["openai"], data=data, headers=_headers(coding)) as response:
        assert 200 == response.status
        assert ("text/event-stream" if stream else "application/json") == response.headers["content-type"]
    assert "Hi" == worker.request.messages[0].content.string_value
    assert "content-encoding" not in worker.metadata


async def test_identity_is_no_coding(client: aiohttp.ClientSession, worker: Worker) -> None:
    """The coding `identity` is allowed."""
    async with client.post(PATHS["openai"], data=BODY, headers=_headers("identity")) as response:
        assert 200 == response.status


async def test_gzip_in_pieces(client: aiohttp.ClientSession, worker: Worker) -> None:
    """A chunked body is decoded as it arrives; the limit applies to the decoded size."""
    content = "x" * (7 * MIB)
    data = gzip.compress(json.dumps(REQUEST | {"user": content}).encode())

    async def pieces() -> object:
        for start in range(0, len(data), 1000):
            yield data[start : start + 1000]

    async with client.post(PATHS["openai"], data=pieces(), headers=_headers("gzip")) as response:
        assert 200 == response.status
    assert content == worker.request.user


@pytest.mark.parametrize("dialect", PATHS)
@pytest.mark.parametrize("coding", ["br", "deflate", "zstd", "compress", "gzip, gzip", "br, gzip"])
async def test_other_codings_are_refused(
    client: aiohttp.ClientSession, worker: Worker, dialect: str, coding: str
) -> None:
    """A 415 in the dialect names the accepted codings, in the message and in a header (RFC 7694)."""
    async with client.post(PATHS[dialect], data=zlib.compress(BODY), headers=_headers(coding)) as response:
        assert (415, "gzip") == (response.status, response.headers["accept-encoding"])
        assert "`Content-Encoding` must be gzip or identity" == message_of(dialect, await response.json())
    assert [] == worker.calls


@pytest.mark.parametrize("damage", [lambda _: BODY, lambda data: data[:-30], lambda _: gzip.compress(b"{")])
async def test_what_is_no_gzip_is_refused(
    client: aiohttp.ClientSession, worker: Worker, damage: Callable[[bytes], bytes]
) -> None:
    """A body that is not gzip, is truncated, or does not contain JSON is a 400 with the cause."""
    async with client.post(PATHS["openai"], data=damage(gzip.compress(BODY)), headers=_headers("gzip")) as response:
        message = "The request body is not valid gzip, or its content is not valid JSON"
        assert (400, message) == (response.status, (await response.json())["error"]["message"])
    assert [] == worker.calls


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
async def test_a_byte_order_mark_is_ignored(
    client: aiohttp.ClientSession, worker: Worker, pack: Callable[[bytes], bytes]
) -> None:
    """A byte order mark is ignored: some Windows clients send one with every body (RFC 8259, 8.1)."""
    headers = {"content-type": "application/json", "content-encoding": "identity" if pack is bytes else "gzip"}
    for body in (BODY, json.dumps(REQUEST | {"unknown": 1}).encode()):
        async with client.post(PATHS["openai"], data=pack(b"\xef\xbb\xbf" + body), headers=headers) as response:
            assert 200 == response.status
        assert "Hi" == worker.request.messages[0].content.string_value


@pytest.mark.parametrize("dialect", PATHS)
@pytest.mark.parametrize("charset", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
async def test_other_encodings_of_text_are_refused(
    client: aiohttp.ClientSession, worker: Worker, dialect: str, charset: str
) -> None:
    """A body in another encoding than UTF-8 is rejected with a message that names UTF-8."""
    headers = {"content-type": f"application/json; charset={charset}"}
    async with client.post(PATHS[dialect], data=json.dumps(REQUEST).encode(charset), headers=headers) as response:
        assert (422 if dialect == "fastapi" else 400) == response.status
        assert "The request body must be JSON in UTF-8" == message_of(dialect, await response.json())
    assert [] == worker.calls


@pytest.mark.parametrize("size", [9, 200])
async def test_a_bomb_is_too_large(edge: Edge, client: aiohttp.ClientSession, worker: Worker, size: int) -> None:
    """A body that decodes to more than the limit is a 413, and is never buffered completely."""
    data = await asyncio.to_thread(_bomb, size)  # the worker runs on this loop, and must answer health checks
    before = _peak(edge)
    async with client.post(PATHS["openai"], data=data, headers=_headers("gzip")) as response:
        assert 413 == response.status
        assert "request_too_large" == (await response.json())["error"]["code"]
    assert [] == worker.calls
    assert _peak(edge) - before < 150 * MIB


def _bomb(mebibytes: int) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)
    return b"".join(packer.compress(bytes(MIB)) for _ in range(mebibytes)) + packer.flush()


def _peak(edge: Edge) -> int:
    """Returns Envoy's peak memory in bytes."""
    lines = Path(f"/proc/{edge.process.pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
