"""Large bodies pass a second listener of Envoy; callers and workers see no difference."""

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from google.api.httpbody_pb2 import HttpBody

from parley.core.errors import RateLimited
from parley.rpc import errors
from parley.supervisor import envoy
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from tests.edge.conftest import AUTHORIZATION, started
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

# Members of a request, in which each kind of value has its edges.
VALUES = [
    '"seed":-9223372036854775808',
    '"seed":"9223372036854775807","n":"3"',
    '"seed":-0,"max_tokens":4294967295,"n":1.0,"top_logprobs":2e0',
    '"seed":1.5e3,"temperature":1e-7,"top_p":"0.25","presence_penalty":-2,"frequency_penalty":0.1',
    '"stream_options":{"include_usage":false},"logprobs":true,"store":null,"parallel_tool_calls":false',
    '"logit_bias":{"1":-100,"2":"0.5","":0},"metadata":{"k":"\\u00e9\\ud83d\\ude00\\n","":""}',
    '"stop":null',
    '"stop":["a","\\"b\\\\","\u2028"],"tool_choice":{"type":"function","function":{"name":"f"}}',
    '"stop":[1.5,-3,0,true,false,null,[],{},[[{"type":{}}]]]',
    '"modalities":[],"tools":[],"user":""',
    '"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","z":1,"a":1.10}}}]',
    '"response_format":{"type":"json_schema","json_schema":{"name":"s","strict":null,"schema":{"b":1,"a":2}}}',
    '"web_search_options":{"user_location":{"type":"approximate","approximate":{"city":"Z\u00fcrich","x":1}}}',
    '"chatSessionId":"s", "unknown" : {"b":[1.0, 12345678901234567890]} ,"user" : "u"',
    f'"user":"{"x" * 127}","prompt_cache_key":"{"y" * 128}","safety_identifier":"{"z" * 20_000}"',
    f'"stop":[{"0," * 32_000}0]',
    f'"functions":[{", ".join(["""{"name":"f","strict":true}"""] * 300)}]',
]


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


async def test_the_script_and_the_transcoder_write_the_same_request(
    client: aiohttp.ClientSession, worker: Worker
) -> None:
    """The first script writes a small body as protobuf, the transcoder a large one."""
    for values in VALUES:
        requests = []
        for padding in ("", " " * PADDING):
            text = f'{{"model":"m","messages":[{{"role":"user","content":"Hi"}}],{values}{padding}}}'
            async with client.post(CHAT, data=text, headers={"content-type": "application/json"}) as response:
                assert 200 == response.status, (values, await response.text())
            requests.append(worker.request)
        assert requests[1] == requests[0], values


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


async def test_a_body_that_the_scripts_cannot_read_or_write_is_refused(
    the_worker: tuple[Worker, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Envoy would pass it on: a small body as JSON, a large one, with which its scripts are loaded, unchecked."""
    worker, socket = the_worker
    worker.reset()
    copy = tmp_path / "edge"
    shutil.copytree(envoy.edge_dir(), copy, ignore=shutil.ignore_patterns("site", "kubernetes"))
    encoding = copy / "lua" / "encoding.lua"
    encoding.write_text(
        encoding.read_text().replace("encoding.write(text, kind)\n", "encoding.write()\n  error('a defect')\n")
    )
    monkeypatch.setattr(envoy, "edge_dir", lambda: copy)
    async with started(tmp_path, [socket]) as edge, aiohttp.ClientSession(headers=AUTHORIZATION) as client:
        shutil.rmtree(copy / "lua")
        for padding, status, code in ((0, 500, "internal"), (PADDING, 503, "service_unavailable")):
            async with client.post(edge.http + CHAT, json=BODY | {"user": "x" * padding}) as response:
                assert status == response.status
                assert code == (await response.json())["error"]["code"]
                assert "parley-processing-ms" not in response.headers  # no worker got it
    assert {} == worker.metadata
