"""Compressed responses: gzip, deflate and zstd, streaming and not, and limits on decompression."""

import asyncio
import json
import sys
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from parley.backends.openai.backend import OpenAI
from parley.core.errors import ParleyError, StreamBroken, UpstreamRejected, UpstreamUnreadable
from tests.contract.backends import call, collect, stream_of, text
from tests.upstream import Cut, Gate, Raw, ScriptedUpstream, Stall, Step, chunks, completion, ending

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MIB = 2**20
ENCODINGS = ["gzip", "deflate", "raw deflate", "zstd"]


Bomb = tuple[bytes, bytes, int]
"""Start of the compressed data, a part that may be repeated, and the number of bytes to which it decompresses."""


def compressor(encoding: str) -> tuple[Any, int, int]:
    """Returns a compressor, and its flush modes: mid-stream and final."""
    if encoding == "zstd":
        return zstd.ZstdCompressor(), zstd.ZstdCompressor.FLUSH_BLOCK, zstd.ZstdCompressor.FLUSH_FRAME
    bits = {"gzip": 31, "deflate": 15, "raw deflate": -15}[encoding]
    return zlib.compressobj(wbits=bits), zlib.Z_SYNC_FLUSH, zlib.Z_FINISH


def compressed(encoding: str, *pieces: bytes) -> list[bytes]:
    """Compresses the parts as one stream that can be decompressed incrementally."""
    made, middle, end = compressor(encoding)
    parts = [made.compress(piece) + made.flush(middle) for piece in pieces]
    return [*parts, made.flush(end)]


def head(encoding: str, status: int = 200) -> str:
    """Returns the head of a compressed response."""
    name = encoding.removeprefix("raw ")
    return f"HTTP/1.1 {status} Scripted\r\nContent-Encoding: {name}\r\nTransfer-Encoding: chunked\r\n\r\n"


def framed(body: bytes) -> bytes:
    """Returns an HTTP chunk."""
    return b"%x\r\n%s\r\n" % (len(body), body) if body else b""


def answer(encoding: str, body: Any, status: int = 200) -> Raw:
    """Creates a compressed JSON response."""
    parts = compressed(encoding, json.dumps(body).encode())
    return Raw([head(encoding, status), framed(b"".join(parts)), b"0\r\n\r\n"])


def lines(steps: list[Step]) -> bytes:
    """Returns a stream's events before compression."""
    return b"".join(
        b"data: %s\n\n" % json.dumps(step).encode() if isinstance(step, dict) else str(step).encode() for step in steps
    )


def events(encoding: str, *steps: Step | list[Step]) -> Raw:
    """Creates a compressed stream; each list of events is flushed together, with gates and other steps between them."""
    made, middle, end = compressor(encoding)
    pieces: list[Step] = [
        framed(made.compress(lines(step)) + made.flush(middle)) if isinstance(step, list) else step for step in steps
    ]
    return Raw([head(encoding), *pieces, framed(made.flush(end)), b"0\r\n\r\n"])


@pytest_asyncio.fixture
async def backend(upstream: ScriptedUpstream) -> AsyncIterator[OpenAI]:
    """The backend, connected to the scripted upstream."""
    made = OpenAI(upstream.url)
    yield made
    await made.close()


async def test_accept_encoding(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """A non-streaming request accepts compression; a streaming one does not, because it may delay events."""
    await backend.complete(call())
    await collect(backend, call())
    await backend.complete(call())
    encodings = [request.headers["accept-encoding"] for request in upstream.requests]
    assert ["gzip, deflate, zstd", "identity", "gzip, deflate, zstd"] == encodings


@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_complete_answer(backend: OpenAI, upstream: ScriptedUpstream, encoding: str) -> None:
    """A compressed response is decompressed, and its connection is reused."""
    upstream.answer(answer(encoding, completion("Hello.")))
    assert "Hello." == (await backend.complete(call())).choices[0].message.content.string_value


@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_error(backend: OpenAI, upstream: ScriptedUpstream, encoding: str) -> None:
    """The message of a compressed error is parsed."""
    upstream.answer(answer(encoding, {"error": {"message": "no tools"}}, 400))
    with pytest.raises(UpstreamRejected) as caught:
        await backend.complete(call())
    assert "no tools" == caught.value.message


@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_stream_is_not_buffered(backend: OpenAI, upstream: ScriptedUpstream, encoding: str) -> None:
    """A compressed stream is delivered incrementally."""
    gate = Gate()
    upstream.answer(events(encoding, chunks("Hel"), gate, [*chunks("lo."), *ending()]))
    delivered = []
    async for chunk in stream_of(backend, call()):
        delivered.append(chunk)
        if "Hel" == text(delivered):
            gate.set()
    assert "Hello." == text(delivered)


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
async def test_truncated_stream(backend: OpenAI, upstream: ScriptedUpstream, encoding: str) -> None:
    """A truncated compressed stream raises StreamBroken after its text was delivered."""
    upstream.answer(events(encoding, chunks("Hel"), Cut()))
    delivered, failed = await broken_off(backend)
    assert ("Hel", StreamBroken) == (text(delivered), type(failed))


@pytest.mark.parametrize("encoding", ENCODINGS)
async def test_garbage(backend: OpenAI, upstream: ScriptedUpstream, encoding: str) -> None:
    """Invalid compressed data is unreadable, or raises StreamBroken after the valid part."""
    broken: list[Step] = [head(encoding), framed(b"\x00garbage" * 9), b"0\r\n\r\n"]
    good = events(encoding, chunks("Hel")).pieces[:2]
    late = Gate()
    upstream.answer(Raw(broken), Raw([*good, late, *broken[1:]]))
    assert isinstance(await failure(backend.complete(call())), UpstreamUnreadable)
    delivered, failed = await broken_off(backend, late)
    assert ("Hel", StreamBroken) == (text(delivered), type(failed))
    assert "content-encoding" in (failed.cause or "").lower()


async def test_identity(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """The encoding `identity` means that the body is not compressed."""
    body = json.dumps(completion("Hello.")).encode()
    upstream.answer(Raw([head("identity"), framed(body), b"0\r\n\r\n"]))
    assert "Hello." == (await backend.complete(call())).choices[0].message.content.string_value


async def test_several_members(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """A gzip body of several members and padding is decompressed completely (RFC 1952, 2.2)."""
    body = json.dumps(completion("Hello.")).encode()
    members = b"".join(compressed("gzip", body[:20]) + compressed("gzip", body[20:]))
    upstream.answer(Raw([head("gzip"), framed(members + b"\0" * 8), b"0\r\n\r\n"]))
    assert "Hello." == (await backend.complete(call())).choices[0].message.content.string_value


async def test_truncated_compression(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """Truncated compressed data is unreadable even if the HTTP framing is complete."""
    parts = compressed("gzip", json.dumps(completion("Hello.")).encode())
    upstream.answer(Raw([head("gzip"), framed(parts[0][:-20]), b"0\r\n\r\n"]))
    assert isinstance(await failure(backend.complete(call())), UpstreamUnreadable)


async def test_unsupported_encoding(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """An unsupported encoding is named in the cause, streaming or not."""
    script = Raw([head("snappy"), framed(b"xyz"), b"0\r\n\r\n"])
    upstream.answer(script, script)
    for result in (backend.complete(call()), collect(backend, call())):
        failed = await failure(result)
        assert UpstreamUnreadable is type(failed)
        assert "'snappy'" in (failed.cause or "")


def deflate_bomb() -> Bomb:
    """Creates a gzip bomb: 8 KiB decompress to 8 MiB."""
    made = zlib.compressobj(9, wbits=31)
    start = made.compress(b" " * MIB) + made.flush(zlib.Z_FULL_FLUSH)
    return start, made.compress(b" " * 8 * MIB) + made.flush(zlib.Z_FULL_FLUSH), 8 * MIB


def zstd_bomb() -> Bomb:
    """Creates a zstd bomb: 4 bytes decompress to 128 KiB (RFC 8878, RLE blocks)."""
    frame = b"\x28\xb5\x2f\xfd\x00\x38"
    block = ((128 * 1024) << 3 | 1 << 1).to_bytes(3, "little") + b" "
    return frame, block * 512, 64 * MIB


@pytest.mark.parametrize(("encoding", "bomb"), [("gzip", deflate_bomb), ("zstd", zstd_bomb)])
@pytest.mark.parametrize("stream", [False, True])
async def test_bomb(
    backend: OpenAI, upstream: ScriptedUpstream, encoding: str, bomb: Callable[[], Bomb], stream: bool
) -> None:
    """A response that decompresses to 10 GiB fails without filling memory or blocking the event loop."""
    start, piece, size = bomb()
    pieces: list[Step] = [framed(piece)] * (10 * 1024 * MIB // size)
    upstream.answer(Raw([head(encoding), framed(start), *pieces, b"0\r\n\r\n"]))
    turns = Turns()
    tracemalloc.start()
    failed = await failure(collect(backend, call()) if stream else backend.complete(call()))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "longer than" in (failed.cause or "")
    assert (StreamBroken if stream else UpstreamUnreadable) is type(failed)
    assert peak < (16 if stream else 100) * MIB
    assert turns.stop() >= (1 if stream else 50)
    assert await upstream.requests[0].closed.arrives()


async def test_bomb_of_short_events(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """A stream that decompresses to endless short events fails in the same way."""
    made = zlib.compressobj(9, wbits=31)
    comments = b": %s\n\n" % (b"x" * 4096) * 256
    start = made.compress(comments) + made.flush(zlib.Z_FULL_FLUSH)
    piece = made.compress(comments) + made.flush(zlib.Z_FULL_FLUSH)
    upstream.answer(Raw([head("gzip"), framed(start), *[framed(piece)] * 300, Stall()]))
    failed = await failure(collect(backend, call()))
    assert StreamBroken is type(failed)
    assert "the stream is longer than" in (failed.cause or "")


async def test_bomb_behind_the_end(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """Data after a complete stream is not decompressed for long; the connection is closed."""
    _, piece, _ = deflate_bomb()
    made = zlib.compressobj(wbits=31)
    non_streaming = made.compress(lines([*chunks("Hello."), *ending()])) + made.flush(zlib.Z_FULL_FLUSH)
    upstream.answer(Raw([head("gzip"), framed(non_streaming + piece * 1000), Stall()]))
    assert "Hello." == text(await collect(backend, call()))
    assert await upstream.requests[0].closed.arrives()


class Turns:
    """Counts iterations of the event loop."""

    def __init__(self) -> None:
        self._count = 0
        self._task = asyncio.ensure_future(self._run())

    def stop(self) -> int:
        """Returns the count."""
        self._task.cancel()
        return self._count

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(0)
            self._count += 1


async def failure(result: Any) -> ParleyError:
    """Returns the error with which a call ends."""
    with pytest.raises(ParleyError) as caught:
        await result
    return caught.value


async def broken_off(backend: OpenAI, gate: Gate | None = None) -> tuple[list[Any], ParleyError]:
    """Returns a stream's chunks and its error; opens the gate at the first chunk."""
    delivered = []
    try:
        async for chunk in stream_of(backend, call()):
            delivered.append(chunk)
            if gate is not None:
                gate.set()
    except ParleyError as error:
        return delivered, error
    raise AssertionError("the stream is complete")
