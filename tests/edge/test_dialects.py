"""The differences between dialects: their selection, the rules of `upchatty`, and the tables of statuses."""

import json
from collections.abc import AsyncIterator

import aiohttp
import grpc
import pytest
from google.api.httpbody_pb2 import HttpBody

from parley.v1.chat_completions_pb2 import ChatCompletion, CreateChatCompletionRequest
from tests.edge.errors import PATHS, REQUEST
from tests.edge.worker import Context, Worker

pytestmark = pytest.mark.asyncio(loop_scope="session")
FASTAPI, UPCHATTY = PATHS["fastapi"], PATHS["upchatty"]
JSON = {"content-type": "application/json"}
FORMS = {
    "openai": {"message", "type", "param", "code"},
    "chipp": {"error"},
    "upchatty": {"error"},
    "fastapi": {"detail"},
    "openpipe": {"message", "type", "param", "code"},
}


@pytest.mark.parametrize(
    ("host", "path", "dialect"),
    [
        ("upchatty.example.com", "/api/v1/nothing", "upchatty"),
        ("upchatty.localhost:8080", "/api/v1/nothing", "upchatty"),
        ("www.upchatty.com", "/api/v1/nothing", "upchatty"),
        ("upchatty.com", "/api/v1/nothing", "upchatty"),
        ("app.openpipe.ai", "/api/v1/nothing", "openpipe"),
        ("APP.openpipe.AI:443", "/api/v1/nothing", "openpipe"),
        ("app.chipp.ai", "/api/v1/nothing", "chipp"),
        ("fastapi.example.com", "/api/v1/nothing", "fastapi"),
        ("openpipe.example.com", "/api/v1/nothing", "openpipe"),
        ("FastAPI.example.com", "/nothing", "fastapi"),
        ("fastapi.example.com", "/v1/nothing", "openai"),
        ("fastapi.example.com", "/openpipe/nothing", "openpipe"),
        ("example.com", "/fastapi/nothing", "fastapi"),
        ("example.com", "/upchatty/nothing", "upchatty"),
        ("example.com", "/openpipe/nothing", "openpipe"),
        ("example.com", "/api/v1/nothing", "chipp"),
        ("my-upchatty.example.com", "/api/v1/nothing", "chipp"),
        ("example.com", "/V1/nothing", "openai"),
        ("example.com", "/FastAPI/api/v1/nothing", "fastapi"),
        ("example.com", "/fastapi", "chipp"),
        ("example.com", "/fastapix/nothing", "chipp"),
    ],
)
async def test_the_path_s_first_part_or_else_the_host_chooses(
    client: aiohttp.ClientSession, host: str, path: str, dialect: str
) -> None:
    """A prefix of the path selects the dialect on every host; without a prefix, the host does."""
    async with client.get(path, headers={"host": host}) as response:
        body = await response.json()
    form = body["error"].keys() if isinstance(body.get("error"), dict) else body.keys()
    assert FORMS[dialect] == set(form)


@pytest.mark.parametrize("dialect", ["upchatty", "fastapi", "openpipe"])
async def test_a_dialect_s_host_needs_no_prefix(client: aiohttp.ClientSession, worker: Worker, dialect: str) -> None:
    """A dialect on its own host has the paths of its document, streams included."""
    headers = {"host": f"{dialect}.example.com", "accept": "*/*"}
    for stream in (False, True):
        async with client.post(
            "/api/v1/chat/completions", json=REQUEST | {"stream": stream}, headers=headers
        ) as response:
            assert 200 == response.status
    async with client.get("/api/v1/models", headers=headers) as response:
        assert 200 == response.status
    assert ["CreateChatCompletionJson", "StreamChatCompletionEvents", "ListModels"] == worker.calls


@pytest.mark.parametrize("prefix", ["/upchatty", "/fastapi", "/openpipe"])
async def test_a_prefix_leads_to_the_same_methods(client: aiohttp.ClientSession, worker: Worker, prefix: str) -> None:
    """The request arrives with its fields, whatever the query is."""
    path = f"{prefix}/api/v1/chat/completions?api-version=1"
    async with client.post(path, json=REQUEST, headers={"accept": "*/*"}) as response:
        assert 200 == response.status
    async with client.post(path, json=REQUEST | {"stream": True}, headers={"accept": "*/*"}) as response:
        assert "text/event-stream" == response.headers["content-type"]
    assert ["CreateChatCompletionJson", "StreamChatCompletionEvents"] == worker.calls
    assert "Hi" == worker.request.messages[0].content.string_value


@pytest.mark.parametrize("temperature", ["0", "0.0", "-0.0", "0.7", "1", "1.0", "null"])
async def test_upchatty_accepts_temperatures_from_0_to_1(
    client: aiohttp.ClientSession, worker: Worker, temperature: str
) -> None:
    """Values that the document allows are accepted; null is equivalent to an absent field."""
    body = json.dumps(REQUEST)[:-1] + f', "temperature": {temperature}}}'
    async with client.post(UPCHATTY, data=body, headers=JSON) as response:
        assert 200 == response.status
    assert (json.loads(temperature) or 0) == worker.request.temperature


@pytest.mark.parametrize(
    "temperature", ["1.0000001", "2", "-0.0000001", "-1", "1e300", '"0.5"', '"hot"', '"NaN"', "true", "false"]
)
@pytest.mark.parametrize("stream", ["true", "false"])
async def test_upchatty_rejects_other_temperatures(
    client: aiohttp.ClientSession, worker: Worker, temperature: str, stream: str
) -> None:
    """The edge rejects a wrong number or type without a call of the worker."""
    body = json.dumps(REQUEST)[:-1] + f', "stream": {stream}, "temperature": {temperature}}}'
    async with client.post(UPCHATTY, data=body, headers=JSON) as response:
        assert 400 == response.status
        assert {"error": "`temperature` must be between 0 and 1"} == await response.json()
    assert [] == worker.calls


@pytest.mark.parametrize("temperature", ["[0.5]", "{}", "1e400", '0.5, "temperature": 1'])
async def test_upchatty_rejects_values_that_are_no_temperature(
    client: aiohttp.ClientSession, worker: Worker, temperature: str
) -> None:
    """Arrays, objects, huge numbers and a duplicate value are rejected."""
    body = json.dumps(REQUEST)[:-1] + f', "temperature": {temperature}}}'
    async with client.post(UPCHATTY, data=body, headers=JSON) as response:
        assert 400 == response.status
        assert {"error"} == (await response.json()).keys()
    assert [] == worker.calls


@pytest.mark.parametrize("prefix", ["", "/fastapi", "/openpipe"])
async def test_other_dialects_leave_the_temperature_to_the_service(
    client: aiohttp.ClientSession, worker: Worker, prefix: str
) -> None:
    """A rule of one dialect does not apply to the others."""
    async with client.post(f"{prefix}/api/v1/chat/completions", json=REQUEST | {"temperature": 1.5}) as response:
        assert 200 == response.status
    assert 1.5 == worker.request.temperature


@pytest.mark.parametrize(
    ("path", "reason", "code", "status"),
    [
        *[
            (f"{prefix}/api/v1/chat/completions", reason, code, status)
            for prefix in ("", "/upchatty")
            for reason, code, status in [
                ("INVALID_REQUEST", grpc.StatusCode.INVALID_ARGUMENT, 400),
                ("MISSING_API_KEY", grpc.StatusCode.UNAUTHENTICATED, 401),
                ("INVALID_API_KEY", grpc.StatusCode.UNAUTHENTICATED, 401),
                ("PLAN_REQUIRED", grpc.StatusCode.PERMISSION_DENIED, 401),
                ("MODEL_NOT_FOUND", grpc.StatusCode.NOT_FOUND, 404),
                ("INTERNAL", grpc.StatusCode.INTERNAL, 500),
            ]
        ],
        (FASTAPI, "INVALID_REQUEST", grpc.StatusCode.INVALID_ARGUMENT, 422),
        (FASTAPI, "MODEL_NOT_FOUND", grpc.StatusCode.NOT_FOUND, 404),
    ],
)
async def test_statuses_are_those_of_the_tables(
    client: aiohttp.ClientSession, worker: Worker, path: str, reason: str, code: grpc.StatusCode, status: int
) -> None:
    """Each failure has the status of the document."""

    async def fail(_request: CreateChatCompletionRequest, context: Context) -> ChatCompletion:
        context.set_trailing_metadata((("parley-error-reason", reason), ("parley-error-code", reason.lower())))
        await context.abort(code, "why")
        raise AssertionError

    worker.complete = fail
    async with client.post(path, json=REQUEST) as response:
        assert status == response.status


@pytest.mark.parametrize("path", ["/api/v1/chat/completions", UPCHATTY])
@pytest.mark.parametrize("status", ["INTERNAL", "UNAVAILABLE", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "UNKNOWN"])
@pytest.mark.parametrize("stream", [False, True])
async def test_documents_000_and_001_know_one_server_error(
    client: aiohttp.ClientSession, worker: Worker, path: str, status: str, *, stream: bool
) -> None:
    """Every server error is 500 with the document's text; `retry-after` is kept."""

    async def fail(_request: CreateChatCompletionRequest, context: Context) -> ChatCompletion:
        metadata = (("parley-error-reason", "UPSTREAM_UNAVAILABLE"), ("parley-error-code", "x"), ("retry-after", "7"))
        await context.abort(grpc.StatusCode[status], "why", metadata)
        raise AssertionError

    async def fail_streamed(request: CreateChatCompletionRequest, context: Context) -> AsyncIterator[HttpBody]:
        await fail(request, context)
        yield HttpBody()

    worker.complete, worker.events = fail, fail_streamed
    async with client.post(path, json=REQUEST | {"stream": stream}) as response:
        assert (500, {"error": "Internal Server Error"}) == (response.status, await response.json())
        assert "7" == response.headers["retry-after"]
