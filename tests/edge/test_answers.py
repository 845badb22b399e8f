"""Responses to REST clients: unary, streaming, complete and cancelled."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from google.api.httpbody_pb2 import HttpBody
from google.protobuf import json_format

from parley.core.messages.typed_fields import json_fields
from parley.v1.chat_completions_pb2 import ChatCompletion, CreateChatCompletionRequest
from parley.v1.models_pb2 import ListModelsResponse, Model
from parley.v1.sessions_pb2 import ListSessionsResponse, Session
from tests.edge.conftest import GOLDEN, Edge
from tests.edge.worker import Context, Worker, gated

pytestmark = pytest.mark.asyncio(loop_scope="session")

CHAT = "/v1/chat/completions"
REQUEST = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


def load(name: str) -> Any:
    """Reads a golden file."""
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def unset(message: Any) -> set[str]:
    """Returns the names of unset fields of the message and its nested messages, except those without a JSON name."""
    if message.DESCRIPTOR.full_name.startswith("google.protobuf."):
        return set()
    names = set()
    present = {field.name: value for field, value in message.ListFields()}
    for field in json_fields(message.DESCRIPTOR):
        value = present.get(field.name)
        if value is None:
            names |= set() if field.name in ("extra", "extra_json") else {field.full_name}
        elif field.message_type and not field.message_type.GetOptions().map_entry:
            parts = [value] if hasattr(value, "DESCRIPTOR") else list(value)
            names |= set.intersection(*(unset(part) for part in parts))
    return names


async def test_every_field_of_a_request_reaches_the_worker(client: aiohttp.ClientSession, worker: Worker) -> None:
    """The JSON of the documents is parsed into the message with every field set."""
    sent = load("request_every_field")
    async with client.post(CHAT, json=sent) as response:
        assert 200 == response.status
    assert set() == unset(worker.request)
    assert sent == json_format.MessageToDict(worker.request)


async def test_every_field_of_an_answer_reaches_the_client(client: aiohttp.ClientSession, worker: Worker) -> None:
    """The JSON has every field under its documented name, zeros included."""
    expected = load("answer_every_field")
    answer = json_format.ParseDict(expected, ChatCompletion())

    async def complete(_request: CreateChatCompletionRequest, _context: Context) -> ChatCompletion:
        return answer

    worker.complete = complete
    async with client.post(CHAT, json=REQUEST) as response:
        assert "application/json" == response.headers["content-type"]
        assert expected == await response.json()
    assert set() == unset(answer)


async def test_a_plain_answer_has_the_documented_form(
    client: aiohttp.ClientSession, worker: Worker, golden: Callable[[str, Any], None]
) -> None:
    """An unset field is omitted, and a zero that is set is printed."""
    text = '{"chatSessionId":"s","id":"c","object":"chat.completion","created":7,"model":"m","choices":[{"index":0,'
    text += '"message":{"role":"assistant","content":"Hé \\"you\\""},"finish_reason":"stop"}],'
    text += '"usage":{"prompt_tokens":0,"completion_tokens":1,"total_tokens":1}}'

    async def complete(_request: CreateChatCompletionRequest, _context: Context) -> ChatCompletion:
        return json_format.Parse(text, ChatCompletion())

    worker.complete = complete
    async with client.post("/api/v1/chat/completions", json=REQUEST) as response:
        golden("answer", await response.json())


async def test_a_large_answer_is_complete(client: aiohttp.ClientSession, worker: Worker) -> None:
    """Buffers limit the memory of a slow client, not the length of an answer."""

    async def complete(_request: CreateChatCompletionRequest, _context: Context) -> ChatCompletion:
        return ChatCompletion(id="x" * 3_000_000)

    worker.complete = complete
    async with client.post(CHAT, json=REQUEST) as response:
        assert "x" * 3_000_000 == (await response.json())["id"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/v1/chat/completions"])
@pytest.mark.parametrize(
    ("body", "headers", "streams"),
    [
        ({}, {}, False),
        ({"stream": True}, {}, True),
        ({"stream": False}, {}, False),
        ({"stream": None}, {}, False),
        ({}, {"accept": "text/event-stream"}, True),
        ({}, {"accept": "text/event-stream; charset=utf-8, */*;q=0.1"}, True),
        ({}, {"accept": "application/json, text/event-stream"}, False),
        ({"stream": False}, {"accept": "text/event-stream"}, False),
        ({"stream": True}, {"accept": "application/json"}, True),
        ({"metadata": {"stream": "true"}}, {}, False),
        ({"stream": True}, {"content-type": "application/json; charset=utf-8"}, True),
    ],
)
async def test_the_body_or_accept_chooses_the_stream(
    client: aiohttp.ClientSession, worker: Worker, path: str, body: Any, headers: dict[str, str], *, streams: bool
) -> None:
    """`stream` in the body decides; without it, an `Accept` with event streams and without JSON."""
    headers = {"content-type": "application/json", **headers}
    async with client.post(path, data=json.dumps(REQUEST | body), headers=headers) as response:
        await response.read()
        assert 200 == response.status
        assert ("text/event-stream" if streams else "application/json") == response.headers["content-type"]
    assert ["StreamChatCompletionEvents" if streams else "CreateChatCompletionJson"] == worker.calls


async def test_events_leave_one_by_one(client: aiohttp.ClientSession, worker: Worker) -> None:
    """An event reaches the client before the worker produces the next one."""
    second = gated(worker)
    async with client.post(CHAT, json=REQUEST | {"stream": True}) as response:
        async with asyncio.timeout(60):
            assert b"data: 1\n\n" == await response.content.readany()
        second.set()
        assert b"data: 2\n\n" == await response.content.read()
        assert "text/event-stream" == response.headers["content-type"]


async def test_a_client_that_leaves_cancels_the_call(client: aiohttp.ClientSession, worker: Worker) -> None:
    """Closing the socket during a stream cancels the worker's handler."""
    ended = asyncio.Event()

    async def events(_request: CreateChatCompletionRequest, _context: Context) -> AsyncIterator[HttpBody]:
        try:
            yield HttpBody(content_type="text/event-stream", data=b"data: 1\n\n")
            await asyncio.Event().wait()
        finally:
            ended.set()

    worker.events = events
    response = await client.post(CHAT, json=REQUEST | {"stream": True})
    await response.content.readany()
    response.close()
    async with asyncio.timeout(60):
        await ended.wait()


async def test_a_slow_reader_holds_up_its_worker(edge: Edge, client: aiohttp.ClientSession, worker: Worker) -> None:
    """A client that stops reading stops the worker: the buffers between them are small."""
    sent = 0

    async def events(_request: CreateChatCompletionRequest, _context: Context) -> AsyncIterator[HttpBody]:
        nonlocal sent
        for _ in range(1000):
            yield HttpBody(content_type="text/event-stream", data=b"x" * 65536)
            sent += 65536

    worker.events = events
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port, limit=1)
    body = json.dumps(REQUEST | {"stream": True}).encode()
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer sk-1\r\n")
    writer.write(b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
    await reader.readexactly(1)
    for _ in range(50):
        async with client.get("/v1/models") as response:
            assert 200 == response.status
    assert 0 < sent < 16_000_000
    writer.close()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v1/models", {"object": "list", "data": []}),
        ("/api/v1/models?x=1", {"object": "list", "data": []}),
        ("/fastapi/api/v1/models", {"object": "list", "data": []}),
        ("/v1/usage", {"object": "list", "data": [], "total": {"calls": 0, "cost": 0.5}}),
        ("/openpipe/api/v1/usage", {"object": "list", "data": [], "total": {"calls": 0, "cost": 0.5}}),
        ("/api/v1/sessions", {"sessions": []}),
        ("/api/v1/sessions?model=none", {"sessions": []}),
        ("/upchatty/api/v1/sessions", {"sessions": []}),
        ("/api/v1/sessions/s/messages", {"messages": []}),
        ("/openpipe/api/v1/sessions/s/messages?page_size=1", {"messages": []}),
    ],
)
async def test_an_empty_list_is_there(
    client: aiohttp.ClientSession, worker: Worker, path: str, expected: dict[str, Any]
) -> None:
    """An empty list is present in the body, so that callers can iterate over it; the content length is correct."""
    worker.models = ListModelsResponse(object="list")
    async with client.get(path) as response:
        assert expected == await response.json()
        assert str(len(await response.read())) == response.headers.get("content-length")


async def test_a_page_can_be_empty_and_not_the_last(client: aiohttp.ClientSession, worker: Worker) -> None:
    """The token of the next page is kept beside an empty list."""
    worker.sessions = ListSessionsResponse(next_page_token='a"sessions":[')
    async with client.get("/api/v1/sessions") as response:
        assert {"sessions": [], "next_page_token": 'a"sessions":['} == await response.json()


async def test_a_list_that_is_not_empty_stays(client: aiohttp.ClientSession, worker: Worker) -> None:
    """A list with items is printed once, whatever their names are."""
    worker.sessions = ListSessionsResponse(sessions=[Session(id="s", model='"sessions":[')])
    worker.models = ListModelsResponse(object="list", data=[Model(id="m")])
    async with client.get("/api/v1/sessions") as response:
        assert '{"sessions":[{"id":"s","model":"\\"sessions\\":["}]}' == await response.text()
    async with client.get("/v1/models") as response:
        assert '{"object":"list","data":[{"id":"m"}]}' == await response.text()


async def test_a_model_may_be_called_as_a_list(client: aiohttp.ClientSession, worker: Worker) -> None:
    """Only lists are completed."""
    async with client.get("/api/v1/models/a/messages") as response:
        assert {"id": "a/messages", "object": "model", "created": 7, "owned_by": "local"} == await response.json()
