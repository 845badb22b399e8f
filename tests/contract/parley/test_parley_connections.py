"""Connections of the backend for another Parley: flow control, timeouts, reconnection, health and TLS."""

import asyncio
import socket
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from parley.backends.parley.backend import Parley
from parley.config import ConfigError
from parley.core.errors import (
    DeadlineExceeded,
    StreamBroken,
    UpstreamError,
    UpstreamMisconfigured,
    UpstreamTimeout,
    UpstreamUnavailable,
    UpstreamUnreadable,
)
from parley.v1.chat_completions_pb2 import ChatCompletionChunk
from parley.v1.message_pb2 import Delta
from tests.contract.backends import KEY, call, collect, failure, text
from tests.contract.certificates import CERTIFICATE
from tests.contract.parley_vendor import chunk, chunks, completion, ending, other_parley
from tests.contract.scripted_parley import Answer, Refusal, ScriptedParley
from tests.processes import reserved_port
from tests.upstream import Cut, Gate, Stall

HELLO = Answer([completion("Hello.")])


async def test_slow_consumer_loses_nothing(backend: Parley, upstream: ScriptedParley) -> None:
    """Messages received before a connection broke are delivered to a slow consumer."""
    pieces, gate = [chunk(Delta(content=f"{number} ")) for number in range(50)], Gate()
    upstream.answer(Answer([*chunks(), *pieces, gate, Cut()]), *[HELLO] * 100)
    stream = backend.stream(call())
    delivered = [await anext(stream)]
    await asyncio.wait_for(_sent(upstream, b"49 "), 60)
    for _ in range(100):
        await backend.complete(call())  # uses the same connection, so that each call also receives part of the stream
    gate.set()
    assert await upstream.requests[0].closed.arrives()
    with pytest.raises(StreamBroken):
        await _read_rest(stream, delivered)
    assert "".join(f"{number} " for number in range(50)) == text(delivered)


async def _sent(upstream: ScriptedParley, data: bytes) -> None:
    while data not in upstream.sent:
        await asyncio.sleep(0.01)


async def _read_rest(stream: AsyncGenerator[ChatCompletionChunk, None], delivered: list[ChatCompletionChunk]) -> None:
    async for piece in stream:
        delivered.append(piece)  # noqa: PERF401 - a comprehension would lose what came before the failure


async def test_backpressure(backend: Parley, upstream: ScriptedParley) -> None:
    """A slow consumer receives the full stream, and flow control stops the other side meanwhile."""
    pieces = [chunk(Delta(content="x" * 200_000))] * 150
    upstream.answer(Answer([*chunks(), *pieces, *ending()]))
    stream = backend.stream(call())
    delivered = [await anext(stream)]
    await asyncio.sleep(0.5)  # without flow control the server would send everything in this time
    assert not upstream.requests[0].answered
    delivered += [piece async for piece in stream]
    assert 30_000_000 == len(text(delivered))


async def test_connect_timeout() -> None:
    """A connection that is not established within `connect` times out."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        backend = other_parley(f"127.0.0.1:{silent.getsockname()[1]}")
        late = await failure(backend, call(timeouts={"connect": 0.1}))
        is_stream = await failure(backend, call(timeouts={"connect": 0.1}), stream=True)
        both = await asyncio.gather(
            *(
                failure(backend, upstream_call)
                for upstream_call in (call(deadline=0.1), call(timeouts={"connect": 0.2}))
            )
        )
        await backend.close()
    assert [UpstreamTimeout, UpstreamTimeout] == [type(late), type(is_stream)]
    assert [DeadlineExceeded, UpstreamTimeout] == [type(failed) for failed in both]
    assert "`connect`" in (late.cause or "")


async def test_reconnection() -> None:
    """The backend reconnects soon after a server restarts."""
    port = reserved_port()
    backend = other_parley(f"127.0.0.1:{port}")
    assert UpstreamUnavailable is type(await failure(backend, call()))
    with ScriptedParley(port=port) as server:
        server.answer(HELLO)
        async with asyncio.timeout(10):
            while True:
                try:
                    await backend.complete(call())
                    break
                except UpstreamUnavailable:
                    await asyncio.sleep(0.05)
        assert 1 == len(server.requests)
    await backend.close()


async def test_something_else_listens() -> None:
    """A server that does not speak gRPC maps to UpstreamUnavailable."""
    server = await asyncio.start_server(
        lambda _, writer: writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "127.0.0.1", 0
    )
    backend = other_parley(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert UpstreamUnavailable is type(await failure(backend, call()))
    await backend.close()
    server.close()


async def test_health(backend: Parley, upstream: ScriptedParley) -> None:
    """The health check queries the status of the ChatCompletions service."""
    await backend.check()
    upstream.set_health(serving=False)
    with pytest.raises(UpstreamUnavailable) as caught:
        await backend.check()
    assert "NOT_SERVING" in (caught.value.cause or "")
    upstream.set_health(serving=True)
    await backend.check()


async def test_health_without_a_server() -> None:
    """The health check fails without a server."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        backend = other_parley(f"127.0.0.1:{unused.getsockname()[1]}", KEY)
        with pytest.raises(UpstreamUnavailable) as caught:
            await backend.check()
        await backend.close()
    assert "refused" in (caught.value.cause or "")
    assert KEY not in f"{caught.value.cause}"


async def test_an_address_that_cannot_be_resolved() -> None:
    """The log has the cause, and the caller neither it nor the address."""
    backend = other_parley("no://where", KEY)
    with pytest.raises(UpstreamUnavailable) as caught:
        await backend.complete(call())
    await backend.close()
    assert ("errors resolving" in (caught.value.cause or ""), "no://" in caught.value.message) == (True, False)


async def test_tls(tmp_path: Path) -> None:
    """With `tls` the certificate is verified against `ca` and for the server's name."""
    key, _, rest = CERTIFICATE.partition("-----BEGIN CERTIFICATE-----")
    certificate = "-----BEGIN CERTIFICATE-----" + rest
    ca = tmp_path / "ca.pem"
    ca.write_text(certificate)
    credentials = grpc.ssl_server_credentials([(key.encode(), certificate.encode())])
    with ScriptedParley(credentials) as server:
        port = server.address.rpartition(":")[2]
        trusted = other_parley(f"localhost:{port}", KEY, tls=True, ca=ca)
        strange, unnamed = (
            # `localhost` may also be an address that refuses the connection, and gRPC reports only the last failure.
            other_parley(f"127.0.0.1:{port}", KEY, tls=True),
            other_parley(f"127.0.0.1:{port}", KEY, tls=True, ca=ca),
        )
        plain_text = other_parley(f"localhost:{port}", KEY)
        server.answer(HELLO)
        await trusted.complete(call())
        assert [UpstreamMisconfigured] * 2 == [type(await failure(other, call())) for other in (strange, unnamed)]
        assert UpstreamUnavailable is type(await failure(plain_text, call()))
        assert 1 == len(server.requests)
        for backend in (trusted, strange, unnamed, plain_text):
            await backend.close()


async def test_client_certificate(tmp_path: Path) -> None:
    """A server that demands a client certificate accepts one, in a file of its own or with its key."""
    key, _, rest = CERTIFICATE.partition("-----BEGIN CERTIFICATE-----")
    certificate = "-----BEGIN CERTIFICATE-----" + rest
    both, alone, key_file = (tmp_path / name for name in ("both.pem", "certificate.pem", "key.pem"))
    both.write_text(CERTIFICATE)
    alone.write_text(certificate)
    key_file.write_text(key)
    pairs = [(key.encode(), certificate.encode())]
    credentials = grpc.ssl_server_credentials(pairs, certificate.encode(), require_client_auth=True)
    with ScriptedParley(credentials) as server:
        address = f"localhost:{server.address.rpartition(':')[2]}"
        one = other_parley(address, KEY, tls=True, ca=alone, client_certificate=both)
        two = other_parley(address, KEY, tls=True, ca=alone, client_certificate=alone, client_key=key_file)
        without = other_parley(address, KEY, tls=True, ca=alone)
        for backend in (one, two):
            server.answer(HELLO)
            await backend.complete(call())
        assert isinstance(await failure(without, call()), UpstreamUnavailable | UpstreamMisconfigured)
        assert 2 == len(server.requests)
        for backend in (one, two, without):
            await backend.close()


@pytest.mark.parametrize("stream", [False, True])
async def test_headers(upstream: ScriptedParley, stream: bool) -> None:
    """The configured headers are metadata of every call, as are the caller's headers that are in the list."""
    backend = other_parley(upstream.address, KEY, headers={"X-Team": "blue"}, forward_headers=["x-tenant"])
    upstream.answer(Answer([*chunks("Hi"), *ending()]) if stream else HELLO)
    sent = replace(call(), forwarded=(("x-tenant", "t-1"), ("x-other", "o-1")))
    await (collect(backend, sent) if stream else backend.complete(sent))
    await backend.close()
    metadata = upstream.requests[0].metadata
    assert ("blue", "t-1", f"Bearer {KEY}") == tuple(metadata[name] for name in ("x-team", "x-tenant", "authorization"))
    assert "x-other" not in metadata


async def test_secret_headers_are_redacted(upstream: ScriptedParley) -> None:
    """A secret of a header that the other side repeats reaches no error."""
    backend = other_parley(upstream.address, headers={"x-token": "secret-of-the-header-1"})
    refusal = Refusal(grpc.StatusCode.INVALID_ARGUMENT, "secret-of-the-header-1 is wrong", "UPSTREAM_REJECTED")
    upstream.answer(Answer([], refusal))
    error = await failure(backend, call())
    await backend.close()
    assert isinstance(error, UpstreamError)
    assert "is wrong" in f"{error} {error.detail}"
    assert "secret-of-the-header-1" not in f"{error} {error.detail} {error.cause}"


async def test_authorities_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing `ca` file raises ConfigError."""
    with pytest.raises(ConfigError, match=r"ca: .*none\.pem cannot be read"):
        other_parley("localhost:1", tls=True, ca=tmp_path / "none.pem")


async def test_abandoned_streams(backend: Parley, upstream: ScriptedParley) -> None:
    """Abandoned streams leave no task behind, and no call at the other side."""
    before = len(asyncio.all_tasks())
    for number in range(100):
        upstream.answer(Answer([*chunks("Hel"), Stall()]))
        stream = backend.stream(call())
        await anext(stream)
        await stream.aclose()
        assert await upstream.requests[number].closed.arrives(1)
    async with asyncio.timeout(60):
        while before != len(asyncio.all_tasks()):  # gRPC's own tasks end soon after their calls
            await asyncio.sleep(0.01)
    assert 1 == upstream.connections


async def test_truncated_after_the_head(backend: Parley, upstream: ScriptedParley) -> None:
    """A complete response that is truncated after its head is not retried."""
    gate = Gate()
    upstream.answer(Answer([gate, Cut()], head=(("x-seen", "xxxx"),)))
    task = asyncio.ensure_future(failure(backend, call()))
    await asyncio.wait_for(_sent(upstream, b"xxxx"), 60)
    gate.set()
    assert UpstreamUnreadable is type(await task)
