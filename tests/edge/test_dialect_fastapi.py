"""The dialect `fastapi`: the choice of a stream, and the errors of validation."""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import grpc
import pytest

from parley.v1.chat_completions_pb2 import ChatCompletion, CreateChatCompletionRequest
from tests.edge.errors import PATHS, REQUEST
from tests.edge.worker import Context, Unary, Worker

pytestmark = pytest.mark.asyncio(loop_scope="session")
FASTAPI, UPCHATTY = PATHS["fastapi"], PATHS["upchatty"]


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
