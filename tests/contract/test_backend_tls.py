"""TLS and proxies of a backend."""

import asyncio
import base64
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from yarl import URL

from parley.backends.http.proxies import proxy_for
from parley.backends.openai.backend import OpenAI
from parley.config import ConfigError
from parley.core.errors import UpstreamMisconfigured
from tests.contract.backends import KEY, call
from tests.contract.certificates import CERTIFICATE
from tests.upstream import Json, Raw, ScriptedUpstream

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
def test_proxy_selection(monkeypatch: pytest.MonkeyPatch, url: str, variables: dict[str, str], expected: str) -> None:
    """The proxy is selected by the environment, with the usual rules."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if expected == "ConfigError":
        with pytest.raises(ConfigError) as rejected:
            proxy_for(URL(url))
        assert "lovelace" not in str(rejected.value)
    else:
        assert expected == str(proxy_for(URL(url)))
