"""What the configuration of a backend makes of its requests: headers, addresses, proxies and certificates."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from parley.backends.factory import make_backend
from parley.cli.shared.checks import check_config
from parley.config import ConfigError
from parley.config.loader import parse
from parley.core.errors import (
    InvalidRequest,
    UpstreamMisconfigured,
)
from parley.core.ports import Backend
from tests.contract.backends import call
from tests.contract.certificates import CERTIFICATE
from tests.upstream import Json, Received, ScriptedUpstream

CONFIG = """
backends:
  one: {{{settings}}}
models:
  - {{id: m, targets: [{{backend: one}}]}}
"""


@asynccontextmanager
async def configured(settings: str, tmp_path: Path) -> AsyncIterator[Backend]:
    """Yields the backend of a configuration."""
    backend = make_backend("one", parse(CONFIG.format(settings=settings), "f").backends["one"], tmp_path)
    try:
        yield backend
    finally:
        await backend.close()


async def sent(settings: str, upstream: ScriptedUpstream, tmp_path: Path, **fields: Any) -> Received:
    """Returns the request of one call."""
    async with configured(f'kind: openai, base_url: "{upstream.url}", {settings}', tmp_path) as backend:
        await backend.complete(replace(call(), **fields))
    return upstream.requests[-1]


@pytest.mark.parametrize(
    ("settings", "path", "header"),
    [
        ("api_key: k-1", "/v1/chat/completions", ("authorization", "Bearer k-1")),
        ("api_key: k-1, key_header: api-key", "/v1/chat/completions", ("api-key", "k-1")),
        ('api_key: k-1, key_header: "X-Auth: Token"', "/v1/chat/completions", ("x-auth", "Token k-1")),
        ("api_key: k-1, key_parameter: key", "/v1/chat/completions?key=k-1", ("authorization", None)),
        ("api_key: a+b&c, key_parameter: key", "/v1/chat/completions?key=a%2Bb%26c", ("authorization", None)),
        ("headers: {x-team: blue}", "/v1/chat/completions", ("x-team", "blue")),
        ("headers: {user-agent: mine/1}", "/v1/chat/completions", ("user-agent", "mine/1")),
        ("query: {api-version: '1', b: a b}", "/v1/chat/completions?api-version=1&b=a+b", ("authorization", None)),
        ("path: /chat", "/v1/chat", ("authorization", None)),
        ('path: "/d/{model}/chat"', "/v1/d/target-1/chat", ("authorization", None)),
    ],
)
async def test_settings_of_requests(
    upstream: ScriptedUpstream, tmp_path: Path, settings: str, path: str, header: tuple[str, str | None]
) -> None:
    """The key, the headers, the query and the path are sent as configured."""
    request = await sent(settings, upstream, tmp_path)
    assert (path, header[1]) == (request.path, request.headers.get(header[0]))


@pytest.mark.parametrize(
    ("model", "segment"),
    [
        ("a/b?c d", "a%2Fb%3Fc%20d"),
        ("a:b", "a%3Ab"),
        ("a%2Fb", "a%252Fb"),
        ("a#b", "a%23b"),
        ("a@b+c;d", "a%40b%2Bc%3Bd"),
        ("%2e%2e", "%252e%252e"),
        ("a/../b", "a%2F..%2Fb"),
        ("é", "%C3%A9"),
        ("{model}", "%7Bmodel%7D"),
    ],
)
async def test_a_model_in_the_path_is_encoded(
    upstream: ScriptedUpstream, tmp_path: Path, model: str, segment: str
) -> None:
    """A name of a model stays one segment of the path: a caller may have chosen it."""
    settings = 'path: "/d/{model}:chat", query: {api-version: "1"}'
    request = await sent(settings, upstream, tmp_path, model=model)
    assert f"/v1/d/{segment}:chat?api-version=1" == request.path


@pytest.mark.parametrize(
    ("path", "model"), [("/d/{model}/chat", "."), ("/d/{model}/chat", ".."), ("/d/.{model}/chat", ".")]
)
async def test_a_model_cannot_lead_to_another_path(
    upstream: ScriptedUpstream, tmp_path: Path, path: str, model: str
) -> None:
    """A name that makes a dot segment is rejected: a caller may have chosen it."""
    with pytest.raises(InvalidRequest):
        await sent(f'path: "{path}"', upstream, tmp_path, model=model)
    assert [] == upstream.requests


async def test_only_listed_headers_of_callers_are_forwarded(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """Of the caller's headers a backend receives those in its list."""
    headers = (("x-tenant", "t-1"), ("x-other", "o-1"))
    request = await sent("forward_headers: [X-Tenant]", upstream, tmp_path, forwarded=headers)
    assert ("t-1", None) == (request.headers.get("x-tenant"), request.headers.get("x-other"))


async def test_a_forwarded_header_takes_the_place_of_parleys(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """A caller's `User-Agent` is sent once, without that of Parley."""
    backend = f'kind: openai, base_url: "{upstream.url}", forward_headers: [user-agent]'
    async with configured(backend, tmp_path) as made:
        await made.complete(replace(call(), forwarded=(("user-agent", "caller/1"),)))
        await made.complete(call())
    assert ["caller/1", None] == [request.headers.get("user-agent") for request in upstream.requests]


async def test_no_error_repeats_a_secret(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """Words of the backend reach neither the log nor the caller with a secret of the key, headers, query or path."""
    secrets = [
        "key-number+1",
        "key-number+1-and-more",
        "header-value-1",
        "query-value/22",
        "segment-of-the-path",
        "hunter2",
    ]
    secrets += ["key-number%2B1", "query-value%2F22"]
    upstream.default = Json({"error": {"message": " ".join(secrets)}}, 401)
    settings = "api_keys: [key-number+1, key-number+1-and-more], path: /segment-of-the-path, query: {b: query-value/22}"
    settings += ", headers: {x-a: header-value-1, x-auth: Token hunter2}"
    with pytest.raises(UpstreamMisconfigured) as caught:
        await sent(settings, upstream, tmp_path)
    texts = f"{caught.value.message} {caught.value.cause} {caught.value.detail}"
    assert [] == [secret for secret in (*secrets, "and-more") if secret in texts]


async def test_proxy_of_a_backend(upstream: ScriptedUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`proxy` is used in place of the environment's, and `off` uses none."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    proxy = upstream.url.removesuffix("/v1")
    settings = f'kind: openai, base_url: "http://vendor.invalid/v1", proxy: "{proxy}"'
    async with configured(settings, tmp_path) as backend:
        await backend.complete(call())
    assert "http://vendor.invalid/v1/chat/completions" == upstream.requests[0].path
    assert "/v1/chat/completions" == (await sent("proxy: off", upstream, tmp_path)).path


async def test_authorities_and_client_certificate(tmp_path: Path) -> None:
    """A server that demands a certificate of the client's authority is called with `ca` and `client_certificate`."""
    pem = tmp_path / "both.pem"
    pem.write_text(CERTIFICATE)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=pem)
    context.load_cert_chain(pem)
    context.verify_mode = ssl.CERT_REQUIRED

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b'{"choices": [{"message": {"content": "Hello."}}]}'
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    url = f"https://localhost:{server.sockets[0].getsockname()[1]}/v1"
    trusted = f'kind: openai, base_url: "{url}", ca: "{pem}"'
    async with configured(f'{trusted}, client_certificate: "{pem}"', tmp_path) as backend:
        answer = await backend.complete(call())
    async with configured(trusted, tmp_path) as backend:
        with pytest.raises(Exception, match="not available"):
            await backend.complete(call())
    server.close()
    assert "Hello." == answer.choices[0].message.content.string_value


@pytest.mark.parametrize("field", ["ca", "client_certificate"])
def test_an_unusable_certificate_file_is_named(tmp_path: Path, field: str) -> None:
    """The error names the field, the file and the reason."""
    missing = tmp_path / "none.pem"
    config = parse(CONFIG.format(settings=f'kind: openai, base_url: "https://a.test", {field}: "{missing}"'), "f")
    with pytest.raises(ConfigError) as caught:
        make_backend("one", config.backends["one"], tmp_path)
    text = f"backends.one.{field}: {missing} cannot be used (No such file or directory); "
    assert str(caught.value).startswith(text)
    file = tmp_path / "parley.yaml"
    file.write_text(CONFIG.format(settings=f'kind: openai, base_url: "https://a.test", {field}: "{missing}"'))
    with pytest.raises(ConfigError) as checked:
        check_config(config, file)
    assert str(checked.value).startswith(f"{file}:3: {text}")
