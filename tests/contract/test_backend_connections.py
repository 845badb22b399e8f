"""Connections of a backend: limits, reuse and DNS."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress

import pytest
import pytest_asyncio
from yarl import URL

from parley.backends.http.client import Endpoint
from parley.backends.http.dialer import AddressInfo
from parley.backends.http.errors import Disconnected, PoolExhausted, RetriedOnFreshConnection
from parley.backends.openai.backend import OpenAI
from parley.config.loader import parse
from parley.core.errors import UpstreamRateLimited, UpstreamTimeout, UpstreamUnavailable
from parley.core.ports import Caller
from parley.core.routing.router import Router
from tests.contract.backends import call, collect, endpoint_for, request, text
from tests.upstream import Cut, Events, Gate, Raw, ScriptedUpstream, Stall, chunks, ending


class Names:
    """A resolver with one name, whose addresses a test can change."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.lookups = 0

    async def resolve(self, host: str, port: int) -> list[AddressInfo]:
        """Returns the current addresses."""
        self.lookups += 1
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, port)) for address in self.addresses]


async def send_request(endpoint: Endpoint) -> bytes:
    """Sends a request and returns the complete response body."""
    answer = await endpoint.post(b"{}", call())
    data = b""
    while piece := await answer.read():
        data += piece
    await answer.release()
    return data


@pytest_asyncio.fixture
async def two_addresses() -> AsyncIterator[tuple[int, dict[str, int]]]:
    """A port on which two loopback addresses respond with their address, and their connection counts."""
    counts = {"127.0.0.1": 0, "127.0.0.2": 0}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = writer.get_extra_info("sockname")[0]
        counts[address] += 1
        while await reader.readline():
            while await reader.readline() != b"\r\n":
                pass
            await reader.readexactly(2)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n" + address.encode())
        writer.close()

    first = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = first.sockets[0].getsockname()[1]
    second = await asyncio.start_server(serve, "127.0.0.2", port)
    yield port, counts
    first.close()
    second.close()


async def test_changed_dns_records(two_addresses: tuple[int, dict[str, int]]) -> None:
    """New connections use the current address; an old connection is replaced."""
    port, counts = two_addresses
    names = Names("127.0.0.1")
    kept, short = (
        endpoint_for(URL(f"http://upstream:{port}/"), dns_seconds=0, resolver=names.resolve, max_age=oldest)
        for oldest in (300, 0)
    )
    assert [b"127.0.0.1"] * 4 == [await send_request(endpoint) for endpoint in (kept, kept, short, short)]
    assert {"127.0.0.1": 3, "127.0.0.2": 0} == counts
    names.addresses = ("127.0.0.2",)
    assert [b"127.0.0.1", b"127.0.0.2"] == [await send_request(endpoint) for endpoint in (kept, short)]
    await kept.close()
    await short.close()


async def test_dns_cache(two_addresses: tuple[int, dict[str, int]]) -> None:
    """A resolved address is cached."""
    port, _ = two_addresses
    names = Names("127.0.0.1")
    endpoint = endpoint_for(URL(f"http://upstream:{port}/"), resolver=names.resolve, max_age=0)
    for _ in range(3):
        await send_request(endpoint)
    assert 1 == names.lookups
    await endpoint.close()


@pytest.mark.parametrize("dead", ["refused", "silent"])
async def test_several_addresses(two_addresses: tuple[int, dict[str, int]], dead: str) -> None:
    """If the first address does not respond, the next one is used without a long delay."""
    port, _ = two_addresses
    with ExitStack() as sockets:
        if dead == "silent":
            full = sockets.enter_context(socket.create_server(("127.0.0.3", port), backlog=0))
            for _ in range(4):
                waiting = sockets.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(full.getsockname())
        endpoint = endpoint_for(URL(f"http://upstream:{port}/"), resolver=Names("127.0.0.3", "127.0.0.2").resolve)
        assert b"127.0.0.2" == await asyncio.wait_for(send_request(endpoint), 60)
        await endpoint.close()


async def test_connection_limit() -> None:
    """Calls over the limit wait for a free connection."""
    with ScriptedUpstream() as upstream:
        backend = OpenAI(upstream.url, connections=2)
        gate = Gate()
        upstream.answer(*[Events([*chunks("a"), gate, *ending()])] * 2)
        running = [asyncio.ensure_future(collect(backend, call())) for _ in range(6)]
        await upstream.arrives(1)
        await asyncio.sleep(0.05)  # without the limit, further requests would have arrived by now
        assert 2 == len(upstream.requests)
        gate.set()
        assert ["a", "a", *["Hello there."] * 4] == [text(chunks) for chunks in await asyncio.gather(*running)]
        assert 2 == upstream.connections
        await backend.close()


@pytest.mark.parametrize("stream", [False, True])
async def test_exhausted_pool(stream: bool) -> None:
    """A call that gets no connection is rate limited; this is no failure of the backend."""
    with ScriptedUpstream() as upstream:
        backend = OpenAI(upstream.url, connections=1)
        upstream.answer(Raw([Stall()]))
        running = asyncio.ensure_future(backend.complete(call()))
        await upstream.arrives()
        upstream_call = call(timeouts={"connect": 0.05})
        with pytest.raises(UpstreamRateLimited) as caught:
            await (collect(backend, upstream_call) if stream else backend.complete(upstream_call))
        assert 1.0 == caught.value.retry_after
        assert "all 1 `connections` to this backend are in use" == caught.value.cause
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert 1 == len((await backend.complete(call())).choices)
        await backend.close()


async def test_cancelled_waits() -> None:
    """A call that is cancelled while it waits for a connection leaves nothing behind."""
    with ScriptedUpstream() as upstream:
        endpoint = endpoint_for(URL(upstream.url), connections=1)
        answer = await endpoint.post(b"{}", call())
        for _ in range(100):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await endpoint.post(b"{}", call())
        with pytest.raises(PoolExhausted):
            await endpoint.post(b"{}", call(timeouts={"connect": 0.01}))
        answer.close()
        (await endpoint.post(b"{}", call())).close()
        await endpoint.close()
    assert 2 == len(upstream.requests)


async def test_one_stale_connection_is_enough() -> None:
    """After one stale connection, no older pooled connection is reused.

    A call is sent at most twice; the error records the second attempt, which counts as a retry.
    """
    with ScriptedUpstream() as upstream:
        endpoint = endpoint_for(URL(upstream.url))
        answers = [await endpoint.post(b"{}", call()) for _ in range(5)]
        for answer in answers:
            await answer.release()
        gone = Raw([b""])
        upstream.answer(*[gone] * 2)
        with pytest.raises(RetriedOnFreshConnection) as caught:
            await endpoint.post(b"{}", call())
        assert isinstance(caught.value.error, Disconnected)
        assert (7, 6) == (len(upstream.requests), upstream.connections)
        upstream.answer(gone)
        with pytest.raises(Disconnected):
            await endpoint.post(b"{}", call())
        await endpoint.close()
    assert (8, 7) == (len(upstream.requests), upstream.connections)


@pytest.mark.parametrize("warm", [0, 4])
async def test_stale_connections_cause_no_extra_attempts(warm: int) -> None:
    """The upstream receives three requests, with or without stale pooled connections."""
    with ScriptedUpstream() as upstream:
        backend = OpenAI(upstream.url)
        config = f"""{{backends: {{a: {{kind: openai, base_url: "{upstream.url}"}}}},
            models: [{{id: m, targets: [{{backend: a}}]}}]}}"""
        router = Router(parse(config, "f"), {"a": backend})
        model = router.model(Caller("default", "key_1"), "m")

        async def make_call() -> None:
            await router.new_execution(model, request(), request().messages, session_id=None, deadline=None).complete()

        await asyncio.gather(*(make_call() for _ in range(warm)))
        upstream.default = Raw([Cut(reset=True)])
        with pytest.raises(UpstreamUnavailable):
            await make_call()
        await backend.close()
    assert 3 == len(upstream.requests) - warm


@pytest.mark.parametrize(
    "head",
    [
        "HTTP/1.1 200 OK\r\nX: " + "x" * 70_000,
        "HTTP/1.1 200 " + "x" * 70_000,
        "HTTP/1.1 200 OK\r\n" + "".join(f"X-{number}: x\r\n" for number in range(10_000)),
    ],
)
async def test_limits_of_the_response_head(head: str) -> None:
    """A header over 64 KiB, or too many headers, fails immediately."""
    with ScriptedUpstream() as upstream:
        backend = OpenAI(upstream.url)
        upstream.answer(Raw([head, Stall()]))
        async with asyncio.timeout(60):
            with pytest.raises(UpstreamUnavailable):
                await backend.complete(call())
        assert await upstream.requests[0].closed.arrives()
        await backend.close()


@pytest.mark.parametrize(("stream", "bound"), [(False, "total"), (True, "first_token")])
async def test_incomplete_response_head(stream: bool, bound: str) -> None:
    """An incomplete response head times out, and its connection is closed."""
    with ScriptedUpstream() as upstream:
        backend = OpenAI(upstream.url)
        upstream.answer(Raw(["HTTP/1.1 200 OK\r\nX: x\r\n", Stall()]))
        upstream_call = call(timeouts={bound: 0.2})
        async with asyncio.timeout(60):
            with pytest.raises(UpstreamTimeout):
                await (collect(backend, upstream_call) if stream else backend.complete(upstream_call))
        assert await upstream.requests[0].closed.arrives()
        await backend.close()


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"
LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"


@asynccontextmanager
async def one_answer(response: bytes) -> AsyncIterator[tuple[URL, list[asyncio.StreamWriter]]]:
    """Runs a server that sends these bytes for each request. Yields its URL and its connections."""
    opened: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened.append(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n{}"):
                writer.write(response)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield URL(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"), opened
    server.close()


@pytest.mark.parametrize(
    ("response", "connections"),
    [
        (CHUNKED + b"\r\n", 1),
        (CHUNKED + b"X-Trailer: 1\r\nY-Trailer: 2\r\n\r\n", 1),
        (LENGTH, 1),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + LENGTH, 1),
        (LENGTH + LENGTH, 3),
        (LENGTH + b"garbage", 3),
        (LENGTH.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"), 3),
        (LENGTH.replace(b"HTTP/1.1", b"HTTP/1.0"), 3),
    ],
    ids=["chunked", "trailers", "length", "1xx", "a second response", "garbage", "close", "HTTP/1.0"],
)
async def test_reuse(response: bytes, connections: int) -> None:
    """A connection is reused after a complete response, unless the server closes it or sends more bytes."""
    async with one_answer(response) as (url, opened):
        endpoint = endpoint_for(url)
        assert [b"x"] * 3 == [await send_request(endpoint) for _ in range(3)]
        await endpoint.close()
    assert connections == len(opened)


async def test_bytes_on_an_idle_connection() -> None:
    """A connection on which the server sends bytes without a request is not reused."""
    async with one_answer(LENGTH) as (url, opened):
        endpoint = endpoint_for(url)
        await send_request(endpoint)
        opened[0].write(LENGTH.replace(b"x", b"y"))
        await opened[0].wait_closed()
        assert b"x" == await send_request(endpoint)
        await endpoint.close()
    assert 2 == len(opened)
