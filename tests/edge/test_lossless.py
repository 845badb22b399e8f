"""Unknown members of every object of a request reach the worker unchanged."""

import json
from typing import Any

import aiohttp
import pytest
from google.protobuf import json_format
from hypothesis import given, note

from parley.backends.openai import request as openai_request
from parley.config import Timeouts
from parley.core.messages import extra_fields
from parley.core.messages.typed_fields import TYPED_FIELDS
from parley.core.ports import UpstreamCall
from parley.rpc import request_forms
from parley.rpc.field_forms import TEXT, forms_in
from parley.rpc.validation import validate
from tests import lossless, lossless_data
from tests.edge.worker import Worker

pytestmark = pytest.mark.asyncio(loop_scope="session")

CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}
REQUEST = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


async def sent(client: aiohttp.ClientSession, worker: Worker, body: str) -> Any:
    """Sends the body, and returns what the worker receives."""
    async with client.post(CHAT, data=body.encode(), headers=JSON) as response:
        assert 200 == response.status, await response.text()
    return lossless.of_message(worker.request)


@lossless.examples(150)
@given(request=lossless.with_members(lossless_data.REQUEST, lossless_data.request_is_open))
async def test_unknown_members_of_every_object(client: aiohttp.ClientSession, worker: Worker, request: Any) -> None:
    """Names, order, numbers of any size, odd characters, empty objects and null are preserved exactly.

    Also checks the request that a backend with OpenAI's API then receives.
    """
    note(lossless.write(request))
    await sent(client, worker, lossless.write(request))
    lossless.require_in(request, lossless.of_message(worker.request))
    request_forms.read(worker.request, worker.request.SerializeToString())
    validate(worker.request, is_stream=True)
    call = UpstreamCall(worker.request, model="m", timeouts=Timeouts())
    body = lossless.read(extra_fields.dump_bytes(openai_request.body(call, stream=True)))
    del request["metadata"], request["messages"][2]["annotations"]  # not sent to any backend
    lossless.require_in(request, body)
    assert "metadata" not in body
    assert "annotations" not in body["messages"][2]


async def test_several_members_keep_their_text_and_order(client: aiohttp.ClientSession, worker: Worker) -> None:
    """Unknown members form one object, whatever their positions; white space and escapes are kept."""
    message = r'{"x\/y" : {"b":1.50, "a":[ ]},"role":"user", "\u0063ontent":"c", "q":"\u00e9"}'
    body = '{"z": 1 , "messages": [' + message + '],"a":null }'
    await sent(client, worker, body)
    assert r'{"z": 1,"a":null}' == worker.request.extra_body_json
    assert r'{"x\/y" : {"b":1.50, "a":[ ]},"q":"\u00e9"}' == worker.request.messages[0].extra_json
    assert ("user", "c") == (worker.request.messages[0].role, worker.request.messages[0].content.string_value)


async def test_members_with_the_names_of_typed_forms_are_unknown(client: aiohttp.ClientSession, worker: Worker) -> None:
    """Over REST the typed forms of gRPC do not exist: members with their names reach the backend as vendors' fields."""
    names = {name: {"a": 1} for fields in TYPED_FIELDS.values() for name in fields}
    message = {"role": "user", "content": "Hi", **names}
    tools = [{"type": "custom", "custom": {"name": "g", **names}}]
    objects = {"audio": {"format": "wav", **names}, "prediction": {"type": "content", "content": "p", **names}}
    body = {"model": "m", "messages": [message], "tools": tools, **objects, **names}
    received = await sent(client, worker, json.dumps(body))
    assert lossless.read(json.dumps(body)) == received
    assert forms_in(worker.request) == TEXT


async def test_schemas_are_text(client: aiohttp.ClientSession, worker: Worker) -> None:
    """Schemas keep the order of their keys and every digit, in tools, functions and response formats."""
    schema = '{"type":"object", "maximum":18446744073709551616,"minimum":0.10000000000000000001,"z":{},"a":{}}'
    tools = '"tools":[{"type":"function","function":{"name":"f","parameters":SCHEMA}}]'
    functions = '"functions":[{"parameters":SCHEMA,"name":"g"}]'
    form = '"response_format":{"type":"json_schema","json_schema":{"schema":SCHEMA,"name":"s"}}'
    body = "{" + f"{tools},{functions},{form}".replace("SCHEMA", schema) + "}"
    await sent(client, worker, body)
    request = worker.request
    assert schema == request.tools[0].function.parameters_json
    assert schema == request.functions[0].parameters_json
    assert schema == request.response_format.json_schema.schema_json
    assert not request.tools[0].function.HasField("parameters")


@pytest.mark.parametrize(
    "body",
    [
        '{"functions":[{"parameters":{"a":1},"name":"f","parameters_json":"{}"}]}',
        '{"functions":[{"parameters_json":"{}","parameters":{"a":1}}]}',
        '{"extra_body":{"a":1},"extra_body_json":"{}"}',
        '{"extra_body_json":"{}","extra_body":{"a":1}}',
    ],
)
async def test_an_object_beside_its_text_stays_one(client: aiohttp.ClientSession, worker: Worker, body: str) -> None:
    """The edge forwards both the object and its text; the service decides."""
    async with client.post(CHAT, data=body, headers=JSON) as response:
        assert 200 == response.status, await response.text()
    assert json.loads(body) == json_format.MessageToDict(worker.request)


async def test_numbers_that_a_double_represents_are_not_moved(client: aiohttp.ClientSession, worker: Worker) -> None:
    """Only inexact values become text; other content stays a value."""
    await sent(client, worker, '{"messages":[{"role":"user","content":[{"type":"t","detail":1234567890.5}]}]}')
    assert not worker.request.messages[0].HasField("extra_json")
    assert 1234567890.5 == worker.request.messages[0].content.list_value.values[0].struct_value["detail"]
    await sent(client, worker, '{"messages":[{"role":"user","content":[{"type":"t","n":9007199254740993}]}]}')
    assert '{"content":[{"type":"t","n":9007199254740993}]}' == worker.request.messages[0].extra_json


async def test_moved_members_leave_valid_json(client: aiohttp.ClientSession, worker: Worker) -> None:
    """An object stays valid JSON when its first, last, only or all members are moved."""
    for inner in ('"x":1', '"x":1,"role":"u"', '"role":"u","x":1', '"x":1,"y":2', '"x":1,"role":"u","y":2,"name":"n"'):
        body = '{"messages":[{' + inner + "}]}"
        assert lossless.read(body) == await sent(client, worker, body)


@pytest.mark.parametrize("text", ["\\ud83d\\ude00", "\\u0000", "\\\\", '\\"', "😀", "\u2028", "\x7f"])
async def test_odd_strings(client: aiohttp.ClientSession, worker: Worker, text: str) -> None:
    """Strings keep their escapes."""
    members = '{"x":"' + text + '","' + text + '":{}}'
    await sent(client, worker, '{"messages":[' + members + "]}")
    assert members == worker.request.messages[0].extra_json


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("path", "nulls"),
    [
        ("/v1/chat/completions", True),
        ("/api/v1/chat/completions", False),
        ("/upchatty/api/v1/chat/completions", False),
        ("/fastapi/api/v1/chat/completions", False),
        ("/openpipe/api/v1/chat/completions", False),
    ],
)
async def test_openai_s_nulls_are_openai_s_alone(
    client: aiohttp.ClientSession, worker: Worker, path: str, nulls: bool, stream: bool
) -> None:
    """Only the openai dialect has nulls: the documents of the others omit them."""
    headers = {"accept": "text/event-stream" if stream else "application/json", "parley-nulls": "x"}
    async with client.post(path, json=REQUEST | {"stream": stream}, headers=headers) as response:
        assert 200 == response.status, await response.text()
    assert ("openai" if nulls else None) == worker.metadata.get("parley-nulls")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/chat/completions:json"),
        ("POST", "/fastapi/api/v1/chat/completions:json"),
        ("GET", "/api/v1/sessions/s/messages:json"),
        ("GET", "/upchatty/api/v1/sessions/s/messages:json?page_size=1"),
    ],
)
async def test_the_methods_of_the_edge_have_no_path(
    client: aiohttp.ClientSession, worker: Worker, method: str, path: str
) -> None:
    """Clients cannot request the edge's internal paths."""
    async with client.request(method, path, json={"model": "m"} if method == "POST" else None) as response:
        assert 404 == response.status
    assert [] == worker.calls


async def test_parsing_time_is_linear(client: aiohttp.ClientSession, worker: Worker) -> None:
    """The time of parsing is linear in the length, for many objects and for one long text."""
    small = ",".join('{"role":"user","content":"x","cache_control":{"type":"ephemeral"}}' for _ in range(60_000))
    large = '{"a":"' + 'x\\"' * 1_000_000 + '"}'
    for body in ('{"messages":[' + small + "]}", large):
        async with client.post(CHAT, data=body.encode(), headers=JSON, timeout=aiohttp.ClientTimeout(60)) as response:
            assert 200 == response.status, (await response.text())[:200]
    assert json.loads(large) == json.loads(worker.request.extra_body_json)


@pytest.mark.parametrize(
    ("part", "is_text"),
    [
        ('{"text":"a","type":"text","cache_control":{"type":"ephemeral"}}', False),
        ('{"type":"image_url","image_url":{"url":"u","detail":"low"}}', False),
        ('{"type":"t","z":1,"a":2}', True),
        ('{"type":"text","text":"a","detail":1.0}', True),
        ('{"type":"text","text":"a","detail":-0}', True),
        ('{"type":"text","text":"a","detail":0.00001}', True),
        ('{"type":"t","data":' + "[" * 40 + "]" * 40 + "}", True),
    ],
)
async def test_content_that_a_value_cannot_represent_becomes_text(
    client: aiohttp.ClientSession, worker: Worker, part: str, is_text: bool
) -> None:
    """Values that a Value cannot represent exactly become text; common content parts do not."""
    await sent(client, worker, '{"messages":[{"role":"user","content":[' + part + "]}]}")
    expected = '{"content":[' + part + "]}" if is_text else ""
    assert expected == worker.request.messages[0].extra_json
