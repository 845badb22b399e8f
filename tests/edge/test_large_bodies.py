"""Large bodies pass a second listener of Envoy; callers and workers see no difference."""

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from google.api.httpbody_pb2 import HttpBody

from parley.core.errors import RateLimited
from parley.rpc import errors
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from tests.edge.worker import Context, Worker

pytestmark = pytest.mark.asyncio(loop_scope="session")

CHAT = "/v1/chat/completions"
PADDING = 300_000
OWN = {"date", "x-request-id", "x-correlation-id", "parley-processing-ms", "content-length", "connection"}
BODY = {"model": "m", "messages": [{"role": "user", "content": "Größe"}], "unknown": 2**60}
BODIES = {
    "complete": BODY,
    "streamed": BODY | {"stream": True},
    "refused by the edge": BODY | {"temperature": "warm"},
    "refused by the transcoder": BODY | {"messages": [{"role": "user", "content": "\ud800"}]},
}


async def _observed(
    client: aiohttp.ClientSession, worker: Worker, body: dict[str, Any], padding: int
) -> tuple[Any, ...]:
    """Returns what the caller and the worker receive for a body with `padding` spaces."""
    text = json.dumps(body)[:-1] + " " * padding + "}"
    async with client.post(CHAT, data=text, headers={"content-type": "application/json"}) as response:
        headers = {name: value for name, value in response.headers.items() if name.lower() not in OWN}
        return response.status, headers, await response.read(), worker.request, sorted(worker.metadata)


@pytest.mark.parametrize("name", BODIES)
async def test_a_large_body_is_answered_like_a_small_one(
    client: aiohttp.ClientSession, worker: Worker, name: str
) -> None:
    """Status, headers and body are the same, and so are the request and the names of metadata at the worker."""
    small = await _observed(client, worker, BODIES[name], 0)
    worker.reset()
    assert small == await _observed(client, worker, BODIES[name], PADDING)


@pytest.mark.parametrize("size", [65_536, 65_537])
async def test_the_bodies_at_the_limit_of_small_ones_are_answered_alike(
    client: aiohttp.ClientSession, worker: Worker, size: int
) -> None:
    """The first script reads a body of 64 KiB as a whole; one byte more makes it large."""
    small = await _observed(client, worker, BODY, 0)
    worker.reset()
    assert small == await _observed(client, worker, BODY, size - len(json.dumps(BODY)))
    assert ["CreateChatCompletionJson"] == worker.calls


async def test_a_small_body_may_become_longer(client: aiohttp.ClientSession, worker: Worker) -> None:
    """Quotes within a member that moves to a text have another backslash there."""
    member = '"' * 32_500
    text = json.dumps(BODY | {"unknown": member})
    async with client.post(CHAT, data=text, headers={"content-type": "application/json"}) as response:
        assert 200 == response.status
    assert {"unknown": member} == json.loads(worker.request.extra_body_json)


async def test_a_failure_of_a_large_body_is_reported_like_one_of_a_small_body(
    client: aiohttp.ClientSession, worker: Worker
) -> None:
    """The worker's status, details and metadata pass the second listener."""

    async def refuse(_request: CreateChatCompletionRequest, context: Context) -> None:
        error = RateLimited("Too many", 7)
        await context.abort(errors.status(error), error.message, errors.trailing_metadata(error))

    worker.complete = refuse
    small = await _observed(client, worker, BODY, 0)
    assert 429 == small[0]
    assert small == await _observed(client, worker, BODY, PADDING)


async def test_a_large_body_has_its_stream_cut_where_the_worker_fails(
    client: aiohttp.ClientSession, worker: Worker
) -> None:
    """Events before the failure are delivered."""

    async def events(_request: CreateChatCompletionRequest, context: Context) -> AsyncIterator[HttpBody]:
        yield HttpBody(content_type="text/event-stream", data=b"data: 1\n\n")
        await context.abort(errors.status(RateLimited("Too many", 7)), "Too many")

    worker.events = events
    small = await _observed(client, worker, BODIES["streamed"], 0)
    assert b"data: 1\n\n" == small[2]
    assert small == await _observed(client, worker, BODIES["streamed"], PADDING)


async def test_a_fork_with_a_large_body_is_made(client: aiohttp.ClientSession, worker: Worker) -> None:
    """A large body of a fork is parsed like a small one."""
    text = '{"through_turn": 2' + " " * PADDING + "}"
    async with client.post("/api/v1/sessions/s/fork", data=text) as response:
        assert 200 == response.status
    assert 2 == worker.request.through_turn
