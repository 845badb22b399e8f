"""Errors in each dialect: those of the service, and Envoy's own."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest

from parley.rpc.error_catalogue import SERVICE, reason_name
from parley.v1.chat_completions_pb2 import ChatCompletion, CreateChatCompletionRequest
from tests.edge.conftest import Edge
from tests.edge.errors import PATHS, REASONS, REQUEST, STATUS, failing, message_of, never, shown
from tests.edge.worker import Context, Worker

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.mark.parametrize("dialect", PATHS)
async def test_every_reason_has_its_status_and_body(
    client: aiohttp.ClientSession, worker: Worker, golden: Callable[[str, Any], None], dialect: str
) -> None:
    """Each error of the service has the format of its dialect."""
    seen = {}
    for case in REASONS:
        worker.complete = failing(case)
        async with client.post(PATHS[dialect], json=REQUEST) as response:
            seen[case[0]] = await shown(response)
            assert [response.headers["x-request-id"]] == response.headers.getall("x-request-id")
            assert [response.headers["x-request-id"]] == response.headers.getall("x-correlation-id")
    golden(f"errors_{dialect}", seen)


async def test_every_reason_is_tried_here() -> None:
    """Every reason of the service has a row above, so that its status, body and headers are tested."""
    assert {reason_name(reason) for reason in SERVICE} == {row[0] for row in REASONS}


async def test_upstream_messages_of_any_characters(client: aiohttp.ClientSession, worker: Worker) -> None:
    """Values that are encoded in headers are decoded in the error."""
    case = ("CONTENT_POLICY", STATUS.INVALID_ARGUMENT, "no \u00e9", "messages%5B0%5D.%C3%A9%0A%25", None)
    worker.complete = failing(case, code="%C3%A9")
    async with client.post(PATHS["openai"], json=REQUEST) as response:
        error = (await response.json())["error"]
    assert ("no \u00e9", "messages[0].\u00e9\n%", "\u00e9") == (error["message"], error["param"], error["code"])


@pytest.mark.parametrize("dialect", ["openai", "openpipe"])
@pytest.mark.parametrize(
    ("wait", "again"), [("0", "true"), ("1", "true"), ("60", "true"), ("61", "false"), ("86400", "false")]
)
async def test_a_long_retry_after_disables_retries(
    client: aiohttp.ClientSession, worker: Worker, dialect: str, wait: str, again: str
) -> None:
    """A `retry-after` above a minute disables retries, because OpenAI's package would retry immediately."""
    worker.complete = failing(("UPSTREAM_RATE_LIMITED", STATUS.RESOURCE_EXHAUSTED, "slow", None, wait))
    async with client.post(PATHS[dialect], json=REQUEST) as response:
        assert (429, wait, again) == (
            response.status,
            response.headers["retry-after"],
            response.headers["x-should-retry"],
        )


@pytest.mark.parametrize("dialect", PATHS)
@pytest.mark.parametrize("code", ["content_policy_violation", "invalid_request", "unsupported_value"])
async def test_an_upstream_s_own_code_reaches_the_caller(
    client: aiohttp.ClientSession, worker: Worker, dialect: str, code: str
) -> None:
    """An error has the upstream's code if its format has one; no upstream code makes it a validation error."""
    rejected = ("UPSTREAM_REJECTED", STATUS.INVALID_ARGUMENT, "why", "tools[0].type", None)
    worker.complete = failing(rejected, code)
    async with client.post(PATHS[dialect], json=REQUEST) as response:
        body = await response.json()
    assert 400 == response.status
    assert "why" == (body["detail"] if dialect == "fastapi" else message_of(dialect, body))
    if dialect in {"openai", "openpipe"}:
        assert ("invalid_request_error", "tools[0].type", code) == tuple(
            body["error"][key] for key in ("type", "param", "code")
        )


@pytest.mark.parametrize("dialect", PATHS)
async def test_the_service_receives_the_format_of_stream_errors(
    client: aiohttp.ClientSession, worker: Worker, dialect: str
) -> None:
    """The edge sends the service the format of errors within a stream, and ignores the client's header of that name."""
    headers = {"parley-error-form": "whatever", "accept": "*/*"}
    async with client.post(PATHS[dialect], json=REQUEST | {"stream": True}, headers=headers) as response:
        assert 200 == response.status
    form = {"chipp": "text", "upchatty": "text", "fastapi": "detail"}.get(dialect)
    assert form == worker.metadata.get("parley-error-form")


@pytest.mark.parametrize("dialect", PATHS)
async def test_a_stream_that_fails_before_its_first_event_has_a_real_status(
    client: aiohttp.ClientSession, worker: Worker, dialect: str
) -> None:
    """An error before the first event has the same response as without a stream."""
    worker.complete, worker.events = failing(REASONS[10]), never
    async with client.post(PATHS[dialect], json=REQUEST) as response:
        expected = await shown(response)
    async with client.post(PATHS[dialect], json=REQUEST | {"stream": True}) as response:
        assert expected == await shown(response)
    assert 404 == expected["status"]


@pytest.mark.parametrize(
    "message",
    [
        'say "hello"',
        "a\\b",
        "tab\tline\nreturn\rbell\a null-ish \x1f",
        "Žluťoučký 猫 🐈",
        "100% sure %41 %zz",
        "</script>",
    ],
)
@pytest.mark.parametrize("dialect", PATHS)
async def test_messages_arrive_as_they_were_written(
    client: aiohttp.ClientSession, worker: Worker, dialect: str, message: str
) -> None:
    """Quotes, control characters, percent signs and all scripts survive gRPC's encoding and JSON's."""
    worker.complete = failing(("INVALID_REQUEST", STATUS.INVALID_ARGUMENT, message, "p", None))
    async with client.post(PATHS[dialect], json=REQUEST) as response:
        assert message == message_of(dialect, await response.json())


async def test_a_failure_without_a_reason_exposes_nothing(client: aiohttp.ClientSession, worker: Worker) -> None:
    """The gRPC library's text about a bug in the service is not exposed."""

    async def fail(_request: CreateChatCompletionRequest, _context: Context) -> ChatCompletion:
        raise KeyError("secret")

    worker.complete = fail
    async with client.post(PATHS["chipp"], json=REQUEST) as response:
        assert 500 == response.status
        assert {"error": "Internal Server Error"} == await response.json()


@pytest.mark.parametrize("dialect", PATHS)
async def test_envoy_s_own_errors_have_the_format_of_the_dialect(
    client: aiohttp.ClientSession, worker: Worker, golden: Callable[[str, Any], None], dialect: str
) -> None:
    """Envoy's own errors have the format of the dialect."""
    path = PATHS[dialect]
    base = path.removesuffix("/chat/completions")
    large = {"data": b'{"user":"' + b"x" * 9_000_000, "headers": {"content-type": "application/json"}}
    requests: dict[str, tuple[str, str, dict[str, Any]]] = {
        "unknown path": ("GET", f"{base}/nothing", {}),
        "the stream's own path": ("POST", f"{path}:stream", {"json": REQUEST}),
        "GET of completions": ("GET", path, {}),
        "OPTIONS of completions": ("OPTIONS", path, {}),
        "POST of models": ("POST", f"{base}/models", {"json": {}}),
        "DELETE of a model": ("DELETE", f"{base}/models/m", {}),
        "a form": ("POST", path, {"data": {"a": "b"}}),
        "text": ("POST", path, {"data": "{}", "headers": {"content-type": "text/plain"}}),
        "no content type": ("POST", path, {"data": b"{}", "skip_auto_headers": ["content-type"]}),
        "9 MB": ("POST", path, large),
    }
    if dialect != "openai":
        requests["PUT of a session"] = ("PUT", f"{base}/sessions/s", {"json": {}})
        requests["DELETE of a session's messages"] = ("DELETE", f"{base}/sessions/s/messages", {})
        requests["messages to add in a form"] = ("POST", f"{base}/sessions/s/messages", {"data": {"model": "m"}})
        requests["a message to add that is no object"] = (
            "POST",
            f"{base}/sessions/s/messages",
            {"json": {"messages": [1]}},
        )
        requests["a title that is no text"] = ("PATCH", f"{base}/sessions/s", {"json": {"title": 1}})
        requests["GET of an import"] = ("GET", f"{base}/account/import", {})
        requests["GET of a session's fork"] = ("GET", f"{base}/sessions/s/fork", {})
        requests["POST of a session's export"] = ("POST", f"{base}/sessions/s/export", {})
        requests["a fork by a form"] = ("POST", f"{base}/sessions/s/fork", {"data": {"through_turn": "1"}})
        requests["a fork of broken JSON"] = (
            "POST",
            f"{base}/sessions/s/fork",
            {"data": "{", "headers": {"content-type": "application/json"}},
        )
        requests["a fork at a turn that is no number"] = (
            "POST",
            f"{base}/sessions/s/fork",
            {"json": {"through_turn": "last"}},
        )
        requests["a time that is no number"] = ("GET", f"{base}/sessions?updated_after=yesterday", {})
        requests["a time before 1970"] = ("GET", f"{base}/sessions?updated_before=-1", {})
        requests["a page size that is no number"] = ("GET", f"{base}/sessions?page_size=x", {})
    requests["20 KB of headers"] = ("GET", f"{base}/models", {"headers": {"x-large": "x" * 20_000}})
    requests["110 headers"] = ("GET", f"{base}/models", {"headers": {f"x-{n}": "1" for n in range(110)}})
    requests["responses"] = ("POST", f"{base}/responses", {"json": REQUEST})
    requests["a model with two slashes"] = ("GET", f"{base}/models//?x=y", {})
    if dialect == "chipp":
        requests["a path of one segment"] = ("GET", "/nothing", {})
    seen = {}
    for name, (method, url, arguments) in requests.items():
        async with client.request(method, url, **arguments) as response:
            seen[name] = await shown(response)
    assert [] == worker.calls
    golden(f"envoy_{dialect}", seen)


async def test_head_has_no_body(client: aiohttp.ClientSession) -> None:
    """HEAD is rejected like any other method, without a body, and the connection stays usable."""
    async with client.head("/v1/models") as response:
        assert 405 == response.status
        assert b"" == await response.read()
    async with client.get("/v1/models") as response:
        assert 200 == response.status


async def test_upgrades_are_refused(edge: Edge) -> None:
    """A request for a WebSocket is rejected with the reason."""
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    writer.write(b"GET /v1/models HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n")
    assert b"HTTP/1.1 403" == (await reader.readline())[:12]
    await reader.readuntil(b"\r\n\r\n")
    assert b"Upgrades are not allowed" in await reader.read(200)
    writer.close()


@pytest.mark.parametrize(
    "head", [b"GET /v1/models HTTP/1.1\r\nHost a", b"GET /v1/models#x HTTP/1.1\r\nHost: a", b"FROB / HTTP/1.1"]
)
async def test_broken_http_is_a_400(edge: Edge, head: bytes) -> None:
    """A request that is not HTTP is a 400 with the cause."""
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    writer.write(head + b"\r\n\r\n")
    assert b"HTTP/1.1 400 Bad Request\r\n" == await reader.readline()
    await reader.readuntil(b"\r\n\r\n")
    assert b"not valid HTTP" in await reader.read(200)
    writer.close()


async def test_the_size_of_a_chunked_body_is_limited(client: aiohttp.ClientSession) -> None:
    """A chunked body without a length is measured as it arrives."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(140):
            yield b"x" * 65536

    headers = {"content-type": "application/json"}
    async with client.post(PATHS["openai"], data=chunks(), headers=headers) as response:
        assert 413 == response.status
        assert "request_too_large" == json.loads(await response.read())["error"]["code"]
