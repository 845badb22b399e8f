"""Unknown keys of a completion's body reach the service as `extra_body`, and change nothing else."""

import json
import random
from typing import Any

import aiohttp
import pytest
from google.protobuf import json_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parley.core.messages.typed_fields import json_fields
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from tests.edge.worker import Worker

pytestmark = pytest.mark.asyncio(loop_scope="session")

CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}
REQUEST: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


async def sent(client: aiohttp.ClientSession, worker: Worker, body: str | bytes) -> dict[str, Any]:
    """Sends the body, and returns the request that the worker got."""
    async with client.post(CHAT, data=body, headers=JSON) as response:
        assert 200 == response.status, await response.text()
    return received(worker)


def received(worker: Worker) -> dict[str, Any]:
    """Returns the request that the worker got as JSON, with the text of `extra_body_json` parsed."""
    got: dict[str, Any] = json_format.MessageToDict(worker.request)
    if "extra_body_json" in got:
        got["extra_body"] = json.loads(got.pop("extra_body_json"))
    return got


def with_keys(text: str) -> str:
    """Returns a request with more keys, which precede the others unchanged."""
    return "{" + text + "," + json.dumps(REQUEST)[1:]


@pytest.mark.parametrize(
    ("text", "expected"),
    {
        "a number": ('"top_k": 5', {"top_k": 5}),
        "several": ('"top_k":5,"min_p":-0.5e-1 , "stream": false,"z":null', {"top_k": 5, "min_p": -0.05, "z": None}),
        "white space": ('\n\t"top_k"\r\n :\t5\n ', {"top_k": 5}),
        "words": ('"a": true, "b":false,"c":null', {"a": True, "b": False, "c": None}),
        "empty": ('"a": {}, "b":[],"c":"","":{}', {"a": {}, "b": [], "c": "", "": {}}),
        "nested": (
            '"a": {"model": {"b": ["}", {"messages": "]"}]}}',
            {"a": {"model": {"b": ["}", {"messages": "]"}]}}},
        ),
        "quotes": (r'"a": "\"}\\", "b\"": "\\\\\"", "c\\": 1', {"a": '"}\\', 'b"': '\\\\"', "c\\": 1}),
        "escapes": (r'"t\u006fp_k": "\u0022,\"x\":1"', {"top_k": '","x":1'}),
        "letters of everywhere": ('"größe📏": "\u2028"', {"größe📏": "\u2028"}),
        "names of other letters": ('"maxTokens": 1, "Model": "x"', {"maxTokens": 1, "Model": "x"}),
        "beside extra_body": ('"extra_body": {"a": 1, "b": {"c": 2}}, "d": 3', {"a": 1, "b": {"c": 2}, "d": 3}),
        "around extra_body": ('"a": 1, "extra_body": {"b": 2}, "c": 3', {"a": 1, "b": 2, "c": 3}),
        "beside null": ('"extra_body": null, "a": 1', {"a": 1}),
    }.values(),
)
async def test_unknown_keys_become_extra_body(
    client: aiohttp.ClientSession, worker: Worker, text: str, expected: dict[str, Any]
) -> None:
    """Unknown keys with any values are added to an `extra_body`."""
    got = await sent(client, worker, with_keys(text))
    assert expected == got.pop("extra_body")
    got.pop("stream", None)
    assert REQUEST == got


KNOWN = {
    name for field in json_fields(CreateChatCompletionRequest.DESCRIPTOR) for name in (field.name, field.json_name)
}
KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
LEAVES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text('"\\{}[],:é\n ', max_size=8)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)


@given(
    extra=st.dictionaries(KEYS.filter(lambda key: key not in KNOWN), VALUES, min_size=1, max_size=6),
    ascii_only=st.booleans(),
    indent=st.none() | st.integers(0, 2),
    seed=st.integers(0, 9),
)
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
async def test_any_json_is_carried(
    client: aiohttp.ClientSession,
    worker: Worker,
    extra: dict[str, Any],
    ascii_only: bool,
    indent: int | None,
    seed: int,
) -> None:
    """Keys and values of every kind arrive as sent, at every position and in every notation."""
    items = list((extra | REQUEST).items())
    random.Random(seed).shuffle(items)
    got = await sent(client, worker, json.dumps(dict(items), ensure_ascii=ascii_only, indent=indent))
    assert extra == got.pop("extra_body")
    assert REQUEST == got


async def test_known_keys_are_not_moved(client: aiohttp.ClientSession, worker: Worker) -> None:
    """Known keys are recognized under both of their names, and with escapes."""
    known = r'"\u0074emperature": 0.5, "session_id": "s", "mode\u006C": "m", "messages": [{"role": "user"}]'
    got = await sent(client, worker, "{" + known + "}")
    expected = {"temperature": 0.5, "chatSessionId": "s", "model": "m", "messages": [{"role": "user"}]}
    assert expected == got
    assert {**expected, "extra_body": {"x": 1}} == await sent(client, worker, '{"x": 1,' + known + "}")


async def test_chunked_bodies_are_rewritten(client: aiohttp.ClientSession, worker: Worker) -> None:
    """A chunked request without a length is rewritten, and so is one that streams."""
    body = json.dumps({"top_k": 5, **REQUEST, "stream": True, "pad": "x" * 300_000}).encode()

    async def pieces() -> Any:
        for at in range(0, len(body), 7919):
            yield body[at : at + 7919]

    async with client.post(CHAT, data=pieces(), headers=JSON) as response:
        assert (200, "text/event-stream") == (response.status, response.headers["content-type"])
    got = received(worker)
    assert {"top_k": 5, "pad": "x" * 300_000} == got["extra_body"]
    assert ["StreamChatCompletionEvents"] == worker.calls


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"top_k": 5', "not valid JSON"),
        ('{"top_k": 5,}', "not valid JSON"),
        ("{'top_k': 5}", "not valid JSON"),
        ("{top_k: 5}", "not valid JSON"),
        ('{"top_k": "\\"}', "not valid JSON"),
        ('{"a": [1, 2}', "not valid JSON"),
        ('{"a": {}}}', "not valid JSON"),
        (r'{"messages": [{"role": "user", "content": "\d+"}]}', "not valid JSON"),
        (r'{"user": "a\\\x"}', "not valid JSON"),
        ('[{"top_k": 5}]', "must be a JSON object"),
        ('"top_k"', "must be a JSON object"),
        ('{"a": 1, "messages": [{"role": "user", "content": "x"}], "extra_body": 5}', "`extra_body`"),
        ('{"a": 1, "model": 5}', "`model`"),
        ('{"a": 1, "model": "m", "model": "n"}', "given twice"),
    ],
)
async def test_invalid_bodies_are_still_rejected(
    client: aiohttp.ClientSession, worker: Worker, body: str, message: str
) -> None:
    """A body that is not JSON or not an object, or has a known key of a wrong type, never reaches the worker."""
    async with client.post(CHAT, data=body, headers=JSON) as response:
        assert 400 == response.status
        assert message in (await response.json())["error"]["message"]
    assert [] == worker.calls


@pytest.mark.parametrize("body", ["", " \n", "null", "{}", " { \n}"])
async def test_bodies_with_nothing_in_them(client: aiohttp.ClientSession, worker: Worker, body: str) -> None:
    """Odd bodies get a response, from the edge or the worker, and the edge stays available."""
    async with client.post(CHAT, data=body, headers=JSON) as response:
        assert response.status in (200, 400)
    assert {"extra_body": {"a": 1}, **REQUEST} == await sent(client, worker, with_keys('"a": 1'))
