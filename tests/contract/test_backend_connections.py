"""Connections of a backend: limits, reuse, DNS, TLS and proxies."""

import asyncio
import base64
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import ServerDisconnectedError
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from parley.backends.http.client import Endpoint, PoolExhausted, RetriedOnFreshConnection
from parley.backends.openai.backend import OpenAI
from parley.config import parse
from parley.core.errors import UpstreamMisconfigured, UpstreamRateLimited, UpstreamTimeout, UpstreamUnavailable
from parley.core.ports import Caller
from parley.core.routing.router import Router
from tests.contract.backends import KEY, call, collect, request, text
from tests.contract.certificates import CERTIFICATE
from tests.upstream import Cut, Events, Gate, Json, Raw, ScriptedUpstream, Stall, chunks, ending


class Names(AbstractResolver):
    """A resolver with one name, whose addresses a test can change."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses
        self.lookups = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Returns the current addresses."""
        self.lookups += 1
        return [
            ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)
            for address in self.addresses
        ]

    async def close(self) -> None:
        """Does nothing."""


async def send_request(endpoint: Endpoint) -> bytes:
    """Sends a request and returns the complete response body."""
    answer = await endpoint.post(b"{}", 5)
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
        Endpoint(URL(f"http://upstream:{port}/"), {}, dns_seconds=0, resolver=names, max_age=oldest)
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
    endpoint = Endpoint(URL(f"http://upstream:{port}/"), {}, resolver=names, max_age=0)
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
        endpoint = Endpoint(URL(f"http://upstream:{port}/"), {}, resolver=Names("127.0.0.3", "127.0.0.2"))
        assert b"127.0.0.2" == await asyncio.wait_for(send_request(endpoint), 10)
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
        endpoint = Endpoint(URL(upstream.url), {}, connections=1)
        answer = await endpoint.post(b"{}", 5)
        for _ in range(100):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await endpoint.post(b"{}", 5)
        with pytest.raises(PoolExhausted):
            await endpoint.post(b"{}", 0.01)
        answer.close()
        (await endpoint.post(b"{}", 5)).close()
        await endpoint.close()
    assert 2 == len(upstream.requests)


async def test_one_stale_connection_is_enough() -> None:
    """After one stale connection, no older pooled connection is reused.

    A call is sent at most twice; the error records the second attempt, which counts as a retry.
    """
    with ScriptedUpstream() as upstream:
        endpoint = Endpoint(URL(upstream.url), {})
        answers = [await endpoint.post(b"{}", 5) for _ in range(5)]
        for answer in answers:
            await answer.release()
        gone = Raw([b""])
        upstream.answer(*[gone] * 2)
        with pytest.raises(RetriedOnFreshConnection) as caught:
            await endpoint.post(b"{}", 5)
        assert isinstance(caught.value.error, ServerDisconnectedError)
        assert (7, 6) == (len(upstream.requests), upstream.connections)
        upstream.answer(gone)
        with pytest.raises(ServerDisconnectedError):
            await endpoint.post(b"{}", 5)
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
        async with asyncio.timeout(10):
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
        async with asyncio.timeout(10):
            with pytest.raises(UpstreamTimeout):
                await (collect(backend, upstream_call) if stream else backend.complete(upstream_call))
        assert await upstream.requests[0].closed.arrives()
        await backend.close()


SCRIPT = """
import asyncio, sys
from parley.backends.openai.backend import OpenAI
from parley.core.errors import ParleyError
from tests.contract.backends import call
async def main():
    backend = OpenAI(sys.argv[1], "sk-for-the-tests")
    try:
        print((await backend.complete(call())).choices[0].message.content.string_value)
    except ParleyError as error:
        print(type(error).__name__, error.message, error.cause)
    await backend.close()
asyncio.run(main())
"""


def run_client(url: str, **variables: str) -> str:
    """Makes a call in a process with this environment. Returns its output."""
    environment = os.environ | {"PYTHONPATH": ".", "no_proxy": ""} | variables
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, url], env=environment, capture_output=True, text=True, check=True
    )
    assert not done.stderr
    return done.stdout.strip()


@pytest_asyncio.fixture
async def tls_port(tmp_path: Path) -> AsyncIterator[int]:
    """The port of a server with a self-signed certificate for localhost."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    (tmp_path / "server.pem").write_text(CERTIFICATE)
    context.load_cert_chain(tmp_path / "server.pem")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b'{"choices": [{"message": {"content": "Hello."}}]}'
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def test_untrusted_certificate(tls_port: int) -> None:
    """An untrusted certificate maps to UpstreamMisconfigured."""
    backend = OpenAI(f"https://localhost:{tls_port}/v1", KEY)
    with pytest.raises(UpstreamMisconfigured) as caught:
        await backend.complete(call())
    assert "CERTIFICATE_VERIFY_FAILED" in (caught.value.cause or "")
    await backend.close()


async def test_trusted_certificate(tls_port: int, tmp_path: Path) -> None:
    """Authorities in SSL_CERT_FILE are trusted for the names in the certificate."""
    trust = {"SSL_CERT_FILE": str(tmp_path / "server.pem")}
    good = await asyncio.to_thread(run_client, f"https://localhost:{tls_port}/v1", **trust)
    other = await asyncio.to_thread(run_client, f"https://127.0.0.1:{tls_port}/v1", **trust)
    assert "Hello." == good
    assert other.startswith("UpstreamMisconfigured")


async def test_plain_http_where_tls_is_expected() -> None:
    """A server without TLS at an https:// URL maps to UpstreamMisconfigured."""

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    backend = OpenAI(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
    with pytest.raises(UpstreamMisconfigured):
        await backend.complete(call())
    await backend.close()
    server.close()


async def test_tunnel(tls_port: int, tmp_path: Path) -> None:
    """TLS passes through the proxy's tunnel, and the server's certificate is verified."""
    seen: list[str] = []

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append((await reader.readuntil(b"\r\n\r\n")).decode())
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", tls_port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))

    server = await asyncio.start_server(tunnel, "127.0.0.1", 0)
    proxy = f"http://ada:lovelace@127.0.0.1:{server.sockets[0].getsockname()[1]}"
    trust = {"SSL_CERT_FILE": str(tmp_path / "server.pem")}
    reported = await asyncio.to_thread(run_client, "https://localhost/v1", https_proxy=proxy, **trust)
    server.close()
    assert "Hello." == reported
    first, *rest = seen[0].split("\r\n")
    assert "CONNECT localhost:443 HTTP/1.1" == first
    assert f"Proxy-Authorization: Basic {base64.b64encode(b'ada:lovelace').decode()}" in rest
    assert "sk-for-the-tests" not in seen[0]


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copies bytes until the end of the stream."""
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("status", [None, 407])
def test_credentials_of_a_proxy_stay_secret(scheme: str, status: int | None) -> None:
    """Errors of a proxy contain neither its user nor its password."""
    with ScriptedUpstream() as upstream:
        upstream.default = Json({}, status) if status else Raw([])
        proxy = upstream.url.removesuffix("/v1").replace("http://", "http://ada:lovelace@")
        reported = run_client(f"{scheme}://upstream.invalid/v1", **{f"{scheme}_proxy": proxy})
    assert reported.startswith("Upstream")
    assert not [
        secret for secret in ("ada", "lovelace", base64.b64encode(b"ada:lovelace").decode()) if secret in reported
    ]


@pytest.mark.parametrize(
    ("url", "variables", "expected"),
    [
        ("http://a.test/v1", {"http_proxy": "http://p:3128"}, "http://p:3128"),
        ("https://a.test/v1", {"http_proxy": "http://p:3128"}, "None"),
        ("https://a.test/v1", {"HTTPS_PROXY": "p:3128"}, "http://p:3128"),
        ("https://a.test/v1", {"ALL_PROXY": "http://p:3128"}, "http://p:3128"),
        ("http://a.test/v1", {"ALL_PROXY": "http://p:3128", "http_proxy": "http://q"}, "http://q"),
        ("http://a.test/v1", {"http_proxy": "http://p", "NO_PROXY": "b.test, .a.test"}, "None"),
        ("http://aa.test/v1", {"http_proxy": "http://p", "NO_PROXY": "b.test, .a.test"}, "http://p"),
        ("http://x.a.test/v1", {"http_proxy": "http://p", "NO_PROXY": "b.test,.a.test"}, "None"),
        ("http://a.test/v1", {"http_proxy": "http://p", "NO_PROXY": "*"}, "None"),
        ("http://10.1.2.3:8000/v1", {"http_proxy": "http://p", "NO_PROXY": "10.1.2.3:8000"}, "None"),
        ("http://10.1.2.3:8000/v1", {"http_proxy": "http://p", "NO_PROXY": "10.1.2.3:9000"}, "http://p"),
        ("http://10.1.2.3:8000/v1", {"http_proxy": "http://p", "NO_PROXY": "b.test, 10.0.0.0/8"}, "None"),
        ("http://11.1.2.3:8000/v1", {"http_proxy": "http://p", "NO_PROXY": "b.test, 10.0.0.0/8"}, "http://p"),
        ("http://[fd00::1]:8000/v1", {"http_proxy": "http://p", "NO_PROXY": "fd00::/8,no/8"}, "None"),
        ("http://a.test/v1", {"http_proxy": "socks5://ada:lovelace@p:1080"}, "ConfigError"),
        ("http://a.test/v1", {}, "None"),
    ],
)
def test_proxy_selection(url: str, variables: dict[str, str], expected: str) -> None:
    """The proxy is selected by the environment, with the usual rules."""
    code = """
import sys
from parley.backends.http.proxies import ConfigError, URL, proxy_for
try:
    print(proxy_for(URL(sys.argv[1])))
except ConfigError as error:
    print("ConfigError", error)
"""
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")} | variables
    argv = [sys.executable, "-c", code, url]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
    assert expected == done.stdout.split()[0]
    assert "lovelace" not in done.stdout
