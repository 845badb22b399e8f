"""CORS: the allowed origins, and the headers that their scripts may send and read."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from parley.supervisor.edge_settings import EdgeSettings
from tests.edge.conftest import AUTHORIZATION, started
from tests.edge.worker import Worker

pytestmark = pytest.mark.asyncio(loop_scope="session")

APP = "https://app.example.com"
CHAT = "/v1/chat/completions"
REQUEST = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
PREFLIGHT = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def base(run_dir: Path, the_worker: tuple[Worker, Path]) -> AsyncIterator[str]:
    """The URL of an edge with two allowed origins."""
    folder = run_dir / "cors"
    folder.mkdir()
    settings = EdgeSettings(cors_origins=(APP, "http://localhost:3000"))
    async with started(folder, [the_worker[1]], settings) as edge:
        yield edge.http


@pytest_asyncio.fixture(loop_scope="session")
async def browser(base: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of that edge: paths are relative to it."""
    async with aiohttp.ClientSession(base, headers=AUTHORIZATION) as session:
        yield session


def cors(response: aiohttp.ClientResponse) -> set[str]:
    """Returns the CORS headers of a response."""
    return {name.lower() for name in response.headers if name.lower().startswith("access-control-")}


def listed(response: aiohttp.ClientResponse, name: str) -> set[str]:
    """Returns a header's list of names."""
    return {part.strip() for part in response.headers[name].split(",")}


@pytest.mark.parametrize("path", [CHAT, "/api/v1/sessions/s", "/fastapi/api/v1/chat/completions"])
@pytest.mark.parametrize("origin", [APP, "http://localhost:3000"])
async def test_a_preflight_request_is_answered(
    browser: aiohttp.ClientSession, worker: Worker, path: str, origin: str
) -> None:
    """The edge answers a preflight request itself, with methods, headers and the maximum age."""
    async with browser.options(path, headers={"origin": origin, **PREFLIGHT}) as response:
        assert 204 == response.status
        assert b"" == await response.read()
    assert origin == response.headers["access-control-allow-origin"]
    assert "Origin" == response.headers["vary"]
    assert {"GET", "POST", "PATCH", "DELETE"} == listed(response, "access-control-allow-methods")
    assert {"authorization", "content-type"} == listed(response, "access-control-allow-headers")
    assert "600" == response.headers["access-control-max-age"]
    assert [] == worker.calls


async def test_an_answer_to_a_browser_echoes_no_odd_id(browser: aiohttp.ClientSession) -> None:
    """A preflight response has valid ids, too."""
    headers = {"origin": APP, **PREFLIGHT, "x-request-id": "a\tb", "x-correlation-id": "a\tb"}
    async with browser.options(CHAT, headers=headers) as response:
        assert re.fullmatch(r"[0-9a-f]{32}", response.headers["x-request-id"])
        assert response.headers["x-request-id"] == response.headers["x-correlation-id"]


async def test_scripts_may_send_the_documented_headers(browser: aiohttp.ClientSession) -> None:
    """Of the headers that a browser requests, only the documented ones and OpenAI's own are allowed."""
    allowed = {"authorization", "content-type", "x-chat-session-id", "x-correlation-id", "idempotency-key"}
    allowed |= {"x-stainless-arch", "x-stainless-retry-count", "x-stainless-some-day"}
    requested = ", ".join([*sorted(allowed), "cookie", "x-secret", "parley-form", "X-Stainless"])
    headers = {"origin": APP, **PREFLIGHT, "access-control-request-headers": requested}
    async with browser.options(CHAT, headers=headers) as response:
        assert allowed == listed(response, "access-control-allow-headers")


@pytest.mark.parametrize(
    ("method", "path", "arguments", "status"),
    [
        ("POST", CHAT, {"json": REQUEST}, 200),
        ("POST", CHAT, {"json": REQUEST | {"stream": True}}, 200),
        ("GET", "/api/v1/models", {}, 200),
        ("POST", CHAT, {"data": b"{", "headers": {"content-type": "application/json"}}, 400),
        ("POST", CHAT, {"data": b"{}", "headers": {"content-type": "text/plain"}}, 415),
        ("GET", "/nothing", {}, 404),
        ("GET", CHAT, {}, 405),
        ("OPTIONS", CHAT, {}, 405),
        ("POST", CHAT, {"data": b"{" * 9_000_000, "headers": {"content-type": "application/json"}}, 413),
    ],
)
async def test_scripts_may_read_every_answer(
    browser: aiohttp.ClientSession, worker: Worker, method: str, path: str, arguments: dict[str, Any], status: int
) -> None:
    """Scripts may read every response, errors included, with its exposed headers."""
    headers = {"origin": APP, **arguments.get("headers", {})}
    async with browser.request(method, path, **(arguments | {"headers": headers})) as response:
        await response.read()
    assert status == response.status
    assert APP == response.headers["access-control-allow-origin"]
    exposed = listed(response, "access-control-expose-headers")
    expected = {
        "x-request-id",
        "x-chat-session-id",
        "retry-after",
        "x-ratelimit-remaining-tokens",
        "x-parley-deprecated",
    }
    assert expected <= exposed


@pytest.mark.parametrize(
    "origin", [None, "null", "https://example.com", "http://app.example.com", f"{APP}.evil.example", f"{APP}:444", "*"]
)
async def test_other_origins_get_no_cors_headers(
    browser: aiohttp.ClientSession, worker: Worker, origin: str | None
) -> None:
    """Another origin gets no CORS headers, so that browsers withhold the response; other clients are served."""
    headers = {} if origin is None else {"origin": origin}
    async with browser.options(CHAT, headers=headers | PREFLIGHT) as response:
        assert 405 == response.status
        assert set() == cors(response)
    async with browser.post(CHAT, json=REQUEST, headers=headers) as response:
        assert 200 == response.status
        assert set() == cors(response)


@pytest.mark.parametrize("host", ["upchatty.example.com", "fastapi.example.com", "openpipe.example.com"])
async def test_every_host_has_the_same_origins(browser: aiohttp.ClientSession, host: str) -> None:
    """CORS applies to every host and dialect."""
    async with browser.get("/api/v1/models", headers={"origin": APP, "host": host}) as response:
        assert APP == response.headers["access-control-allow-origin"]


async def test_it_is_off_by_default(client: aiohttp.ClientSession) -> None:
    """By default no origin is allowed."""
    async with client.options(CHAT, headers={"origin": APP, **PREFLIGHT}) as response:
        assert 405 == response.status
        assert set() == cors(response)
    async with client.get("/v1/models", headers={"origin": APP}) as response:
        assert set() == cors(response)


async def test_a_star_lets_every_page_in(run_dir: Path, the_worker: tuple[Worker, Path]) -> None:
    """An asterisk allows every origin."""
    folder = run_dir / "star"
    folder.mkdir()
    async with (
        started(folder, [the_worker[1]], EdgeSettings(cors_origins=("*",))) as edge,
        aiohttp.ClientSession(edge.http, headers=AUTHORIZATION) as session,
        session.get("/v1/models", headers={"origin": "https://any.example"}) as response,
    ):
        assert "https://any.example" == response.headers["access-control-allow-origin"]
