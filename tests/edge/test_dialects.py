"""The differences between dialects: their selection, their rules, and the choice of a stream."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import grpc
import pytest
from google.api.httpbody_pb2 import HttpBody

from parley.v1.chat_completions_pb2 import ChatCompletion, CreateChatCompletionRequest
from tests.edge.worker import Context, Unary, Worker

pytestmark = pytest.mark.asyncio(loop_scope="session")

UPCHATTY = "/upchatty/api/v1/chat/completions"
FASTAPI = "/fastapi/api/v1/chat/completions"
REQUEST = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
JSON = {"content-type": "application/json"}
FORMS = {
    "openai": {"message", "type", "param", "code"},
    "chipp": {"error"},
    "upchatty": {"error"},
    "fastapi": {"detail"},
    "openpipe": {"message", "type", "param", "code"},
}


def refusing(violations: list[tuple[str, str]], reason: str = "INVALID_REQUEST") -> Unary:
    """Returns a handler that rejects a request with these violations, as the service does."""

    async def refuse(_request: CreateChatCompletionRequest, context: Context) -> ChatCompletion:
        metadata = [
            ("parley-error-reason", reason),
            ("parley-error-code", reason.lower()),
            ("parley-error-param", violations[0][0]),
            ("parley-error-violations", urlencode([(f, f"value_error:{m}") for f, m in violations], quote_via=quote)),
        ]
        context.set_trailing_metadata(tuple(metadata))
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, violations[0][1])
        raise AssertionError

    return refuse


# ------------------------------------------------------------------------------------------------------ the choice


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


# -------------------------------------------------------------------------------------------------------- upchatty


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


# --------------------------------------------------------------------------------------------------------- fastapi


@pytest.mark.parametrize(
    ("accept", "stream", "streams"),
    [
        ("text/event-stream", None, True),
        ("text/event-stream", False, True),
        ("text/event-stream", True, True),
        ("Text/Event-Stream;q=0.9", False, True),
        ("application/json", None, False),
        ("application/json", False, False),
        ("application/json", True, False),
        ("application/json; charset=utf-8", True, False),
        ("application/json, text/event-stream", True, True),
        ("application/json, text/event-stream", False, False),
        ("application/json, text/plain, */*", True, True),
        ("text/event-stream, */*", False, False),
        ("text/html", True, True),
        ("text/event-stream;q=0", True, True),
        ("text/event-stream;q=0, application/json", True, False),
        ("application/json;q=0.5, text/event-stream", False, True),
        ("application/json, text/event-stream; q=0.9", True, False),
        ("text/*", False, True),
        ("application/*", True, False),
        ("*/*", None, False),
        ("*/*", False, False),
        ("*/*", True, True),
        (None, None, False),
        (None, True, True),
    ],
)
async def test_accept_decides_in_fastapi(
    client: aiohttp.ClientSession, worker: Worker, accept: str | None, *, stream: bool | None, streams: bool
) -> None:
    """`Accept` overrides the body, unless it is absent or accepts any type; the service learns of the override."""
    headers = {} if accept is None else {"accept": accept}
    body = REQUEST if stream is None else REQUEST | {"stream": stream}
    async with client.post(FASTAPI, json=body, headers=headers, skip_auto_headers=["accept"]) as response:
        assert ("text/event-stream" if streams else "application/json") == response.headers["content-type"]
    assert ["StreamChatCompletionEvents" if streams else "CreateChatCompletionJson"] == worker.calls
    assert ("whole" if stream and not streams else None) == worker.metadata.get("parley-form")


async def test_a_client_cannot_choose_the_form(client: aiohttp.ClientSession, worker: Worker) -> None:
    """The edge removes its internal headers from clients' requests."""
    for path in (FASTAPI, UPCHATTY):
        headers = {"parley-form": "whole", "accept": "*/*"}
        async with client.post(path, json=REQUEST | {"stream": True}, headers=headers):
            assert "parley-form" not in worker.metadata


async def test_fastapi_reports_every_violation(
    client: aiohttp.ClientSession, worker: Worker, golden: Callable[[str, Any], None]
) -> None:
    """Each violation has its location, with indexes as numbers, in the service's order; absent fields are `missing`."""
    worker.complete = refusing(
        [
            ("messages[0].role", "`messages[0].role` must be one of user & others = all"),
            ("messages[11].tool_calls[0].function.name", "`…name` is required"),
            ("model", "`model` is required and must be a string"),
            ("logit_bias.50256", "`logit_bias` must be between -100 and 100"),
            ("stop", 'a "quoted" 猫 100% + \\ \n end'),
            ("chatSessionId", "`chatSessionId` cannot be used: leave it out"),
        ]
    )
    async with client.post(FASTAPI, json=REQUEST) as response:
        assert 422 == response.status
        golden("violations_fastapi", await response.json())


async def test_only_the_first_violation_shows_elsewhere(client: aiohttp.ClientSession, worker: Worker) -> None:
    """Other dialects show one violation, and no headers contain the list."""
    worker.complete = refusing([("n", "`n` must be between 1 and 128"), ("stop", "no")])
    for path in (UPCHATTY, "/api/v1/chat/completions"):
        async with client.post(path, json=REQUEST) as response:
            assert {"error": "`n` must be between 1 and 128"} == await response.json()
            assert "parley-error-violations" not in response.headers


async def test_other_errors_are_not_422(client: aiohttp.ClientSession, worker: Worker) -> None:
    """A backend's rejection is a 400 with a plain detail."""
    worker.complete = refusing([("tools", "This model does not support tools")], "UPSTREAM_REJECTED")
    async with client.post(FASTAPI, json=REQUEST) as response:
        assert 400 == response.status
        assert {"detail": "This model does not support tools"} == await response.json()


# -------------------------------------------------------------------------------------------- the tables of statuses


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
