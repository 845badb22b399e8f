"""gRPC-Web and Connect on the REST listener, at the level of bytes."""

import base64
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import aiohttp
import grpc
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2, status_pb2

from parley.core.errors import InvalidApiKey, ModelNotFound
from parley.rpc import errors
from parley.supervisor.edge_settings import DEFAULT_EDGE
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk, CreateChatCompletionRequest
from parley.v1.message_pb2 import Message
from tests.edge.conftest import AUTHORIZATION, started
from tests.edge.test_workers import subfolder
from tests.edge.worker import Worker

pytestmark = pytest.mark.asyncio(loop_scope="session")

APP = "https://app.example.com"
ON = replace(DEFAULT_EDGE, cors_origins=(APP,), grpc_web=True)
WEB, UNARY, STREAM = "application/grpc-web+proto", "application/proto", "application/connect+proto"
CREATE, STREAMED = "CreateChatCompletion", "StreamChatCompletion"
CALLS = [(WEB, CREATE), (UNARY, CREATE), (STREAM, STREAMED)]
NO_WORKER = ("No worker is available; the call did not begin, try again", "SERVICE_UNAVAILABLE", 1)


def frame(message: bytes) -> bytes:
    """Returns a message as gRPC frames it."""
    return b"\0" + len(message).to_bytes(4) + message


def unframe(data: bytes) -> list[tuple[int, bytes]]:
    """Returns the frames of a body, each with its flag."""
    frames = []
    while data:
        length = int.from_bytes(data[1:5])
        frames.append((data[0], data[5 : 5 + length]))
        data = data[5 + length :]
    return frames


async def call(
    client: aiohttp.ClientSession, kind: str, method: str, content: str = "Hi", headers: dict[str, str] | None = None
) -> tuple[aiohttp.ClientResponse, bytes]:
    """Calls a method of ChatCompletions in the protocol of the content type; returns the response and its body."""
    message = Message(role="user")
    message.content.string_value = content
    body = CreateChatCompletionRequest(model="m", messages=[message]).SerializeToString()
    known = {"content-type": kind, "origin": APP, **AUTHORIZATION, **(headers or {})}
    if kind != WEB:
        known["connect-protocol-version"] = "1"
    url = f"/parley.v1.ChatCompletions/{method}"
    async with client.post(url, data=body if kind == UNARY else frame(body), headers=known) as response:
        return response, await response.read()


def failure(kind: str, response: aiohttp.ClientResponse, body: bytes) -> tuple[Any, str, str, int | None]:
    """Returns the code, the message, the reason, and the seconds until a retry, of a failure in the protocol."""
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    if kind == WEB:
        trailers: Any = response.headers
        if "grpc-status" not in trailers:
            trailers = dict(line.split(":", 1) for line in unframe(body)[-1][1].decode().splitlines())
        padded = trailers["grpc-status-details-bin"] + "=="
        rich = status_pb2.Status.FromString(base64.b64decode(padded))
        rich.details[0].Unpack(info)
        known = len(rich.details) > 1 and rich.details[1].Unpack(retry)
        seconds = retry.retry_delay.seconds if known else None
        return int(trailers["grpc-status"]), unquote(trailers["grpc-message"]), info.reason, seconds
    error = json.loads(body) if kind == UNARY else json.loads(unframe(body)[-1][1])["error"]
    details = {
        detail["type"].removeprefix("type.googleapis.com/"): base64.b64decode(detail["value"] + "==")
        for detail in error["details"]
    }
    info.ParseFromString(details["google.rpc.ErrorInfo"])
    delay = details.get("google.rpc.RetryInfo")
    seconds = error_details_pb2.RetryInfo.FromString(delay).retry_delay.seconds if delay else None
    return error["code"], error["message"], info.reason, seconds


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def web(the_worker: tuple[Worker, Path], run_dir: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of a REST listener with gRPC-Web and Connect."""
    async with (
        started(subfolder(run_dir, "web"), [the_worker[1]], ON) as edge,
        aiohttp.ClientSession(edge.http, headers=AUTHORIZATION) as client,
    ):
        yield client


@pytest.mark.parametrize(("kind", "method"), CALLS)
async def test_a_call_is_answered_in_its_protocol(
    web: aiohttp.ClientSession, worker: Worker, kind: str, method: str
) -> None:
    """A message of 1 MB arrives, and its answer is that of the method; a page of an allowed origin may read it."""
    response, body = await call(
        web, kind, method, "x" * 2**20, {"x-correlation-id": "mine", "parley-refusal": "model=x"}
    )
    assert (200, kind) == (response.status, response.headers["content-type"])
    if kind == UNARY:
        assert "chatcmpl-1" == ChatCompletion.FromString(body).id
    else:
        (flag, message), *rest = unframe(body)
        assert (0, "chatcmpl-1") == (flag, ChatCompletionChunk.FromString(message).id)
        assert 1 == len(rest)
        assert rest[0] == (2, b"{}") if kind == STREAM else b"grpc-status:0" in rest[0][1]
    assert [method] == worker.calls
    assert 2**20 == len(worker.request.messages[0].content.string_value)
    assert "Bearer sk-1" == worker.metadata["authorization"]
    assert (APP, "mine") == tuple(
        response.headers[name] for name in ("access-control-allow-origin", "x-correlation-id")
    )
    assert "grpc-status-details-bin" in response.headers["access-control-expose-headers"]


@pytest.mark.parametrize(("kind", "method"), CALLS)
async def test_an_error_of_the_service_is_readable(
    web: aiohttp.ClientSession, worker: Worker, kind: str, method: str
) -> None:
    """The status, message and details of an error of the service arrive in each protocol."""

    async def fail(_request: Any, context: Any) -> None:
        error = ModelNotFound("m\u00e9")
        await context.abort(errors.status(error), error.message, errors.trailing_metadata(error))

    worker.complete = worker.chunks = fail
    response, body = await call(web, kind, method)
    code = grpc.StatusCode.NOT_FOUND.value[0] if kind == WEB else "not_found"
    assert (code, 'Unknown model "m\u00e9"', "MODEL_NOT_FOUND", None) == failure(kind, response, body)
    assert APP == response.headers["access-control-allow-origin"]


@pytest.mark.parametrize("kind", [WEB, STREAM])
async def test_a_stream_that_fails_ends_with_its_error(web: aiohttp.ClientSession, worker: Worker, kind: str) -> None:
    """A stream that fails after its first message delivers the message, and then the error."""

    async def fail(_request: Any, context: Any) -> None:
        await context.write(ChatCompletionChunk(id="chatcmpl-1"))
        error = ModelNotFound("m\u00e9")
        await context.abort(errors.status(error), error.message, errors.trailing_metadata(error))

    worker.chunks = fail
    response, body = await call(web, kind, STREAMED)
    assert "chatcmpl-1" == ChatCompletionChunk.FromString(unframe(body)[0][1]).id
    assert 'Unknown model "m\u00e9"' == failure(kind, response, body)[1]


@pytest.mark.parametrize(("kind", "method"), CALLS)
async def test_an_error_of_the_edge_is_readable(
    web: aiohttp.ClientSession, worker: Worker, kind: str, method: str
) -> None:
    """A limit of the edge fails in each protocol as on the gRPC listener, and never looks like an empty answer."""
    code = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0] if kind == WEB else "resource_exhausted"
    message = "The request message is larger than 8 MiB"
    assert (code, message, "REQUEST_TOO_LARGE", None) == failure(kind, *await call(web, kind, method, "x" * 2**23))
    message = "The request headers are larger than 12 KiB"
    refused = await call(web, kind, method, headers={"x": "x" * 13_000})
    assert (code, message, "HEADERS_TOO_LARGE", None) == failure(kind, *refused)
    unknown = await call(web, kind, "StreamChatCompletionEvents")
    assert "UNKNOWN_METHOD" == failure(kind, *unknown)[2]
    assert [] == worker.calls


@pytest.mark.parametrize(("kind", "method"), CALLS)
@pytest.mark.parametrize(
    ("value", "expected", "error"),
    [("", "Missing API key", ""), ("Bearer nonsense", "Invalid API key", ', error="invalid_token"')],
)
async def test_a_refused_credential_is_challenged(
    web: aiohttp.ClientSession, worker: Worker, kind: str, method: str, value: str, expected: str, error: str
) -> None:
    """A refusal by the edge has the same challenge as on the other paths and listeners, and a page may read it."""
    response, body = await call(web, kind, method, headers={"authorization": value})
    code, message, _, _ = failure(kind, response, body)
    assert (16 if kind == WEB else "unauthenticated", expected) == (code, message)
    assert response.headers["www-authenticate"].startswith(f'Bearer realm="parley"{error}')
    assert "www-authenticate" in response.headers["access-control-expose-headers"]
    assert [] == worker.calls


@pytest.mark.parametrize(("kind", "method"), CALLS)
async def test_a_large_call_with_a_rejected_credential_is_challenged(
    web: aiohttp.ClientSession, worker: Worker, kind: str, method: str
) -> None:
    """The check of a credential before a large message is read has a challenge and a readable error, too."""
    worker.rejection = InvalidApiKey()
    response, body = await call(web, kind, method, "x" * 2**17)
    code, message, _, _ = failure(kind, response, body)
    assert (16 if kind == WEB else "unauthenticated", "Invalid API key") == (code, message)
    assert response.headers["www-authenticate"].startswith('Bearer realm="parley", error="invalid_token"')


async def test_without_a_worker_the_error_is_readable(run_dir: Path) -> None:
    """Without a worker a call is unavailable in each protocol, with the same reason and delay."""
    async with (
        started(subfolder(run_dir, "webnone"), [], ON) as edge,
        aiohttp.ClientSession(edge.http, headers=AUTHORIZATION) as client,
    ):
        for kind, method in CALLS:
            expected = grpc.StatusCode.UNAVAILABLE.value[0] if kind == WEB else "unavailable"
            assert (expected, *NO_WORKER) == failure(kind, *await call(client, kind, method)), kind


async def test_other_formats_are_rejected_with_a_hint(web: aiohttp.ClientSession, worker: Worker) -> None:
    """Connect's JSON, its clients' default, is rejected with an error that names the option to set."""
    headers = {"connect-protocol-version": "1", "origin": APP} | AUTHORIZATION
    async with web.post("/parley.v1.ChatCompletions/CreateChatCompletion", json={}, headers=headers) as response:
        error = await response.json()
    assert (415, "unimplemented") == (response.status, error["code"])
    assert "useBinaryFormat" in error["message"]
    assert APP == response.headers["access-control-allow-origin"]
    assert [] == worker.calls


async def test_a_browser_may_call(web: aiohttp.ClientSession) -> None:
    """The preflight request allows the headers of both protocols."""
    requested = ["authorization", "content-type", "x-grpc-web", "x-user-agent", "grpc-timeout"]
    requested += ["connect-protocol-version", "connect-timeout-ms", "idempotency-key"]
    headers = {"origin": APP, "access-control-request-method": "POST"}
    headers["access-control-request-headers"] = ", ".join([*requested, "x-other"])
    async with web.options("/parley.v1.ChatCompletions/CreateChatCompletion", headers=headers) as response:
        assert 204 == response.status
        assert ", ".join(requested) == response.headers["access-control-allow-headers"]


@pytest.mark.parametrize(("kind", "method"), CALLS)
async def test_it_is_off_by_default(client: aiohttp.ClientSession, worker: Worker, kind: str, method: str) -> None:
    """Without the option the paths of gRPC do not exist on the REST listener."""
    response, _ = await call(client, kind, method)
    assert (415 if kind == WEB else 404) == response.status
    assert [] == worker.calls


@pytest.mark.parametrize("path", ["/parley.binpb", "/openapi.json"])
async def test_the_api_s_descriptions_are_served(client: aiohttp.ClientSession, path: str) -> None:
    """The descriptor set and the API document are those of `edge/`, and are only read."""
    async with client.get(path) as response:
        assert 200 == response.status
        assert (Path("edge") / path[1:]).read_bytes() == await response.read()
    async with client.post(path) as response:
        assert (405, "GET, HEAD") == (response.status, response.headers["allow"])
