"""Request bodies of the OpenAI backend: parameters, JSON given as text, and headers."""

import json
from pathlib import Path
from typing import Any

import pytest

from parley.backends.openai.backend import OpenAI
from parley.backends.openai.request import NOT_SENT
from parley.core.errors import (
    InvalidRequest,
)
from parley.core.messages.typed_fields import json_fields
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.message_pb2 import Message
from tests.contract.backends import (
    KEY,
    QUESTION,
    call,
    collect,
    failure,
)
from tests.upstream import (
    Json,
    ScriptedUpstream,
    completion,
)

SCHEMA = {"type": "object", "properties": {"zebra": {"type": "string", "maxLength": 5}, "apple": {"minimum": 0.5}}}
EVERYTHING: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Be brief.", "name": "boss"},
        {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "u"}}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"b":1, "a":2}'}},
                {"id": "c2", "type": "custom", "custom": {"name": "g", "input": "free text"}},
            ],
            "refusal": "rather not",
            "reasoning_content": "hm",
            "audio": {"id": "audio_1"},
        },
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
        {"role": "assistant", "content": "", "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "0"},
    ],
    "temperature": 0.0,
    "top_p": 0.25,
    "n": 2,
    "stop": ["a", "b"],
    "max_tokens": 10,
    "max_completion_tokens": 20,
    "presence_penalty": -1.5,
    "frequency_penalty": 0.5,
    "logit_bias": {"50256": -100},
    "logprobs": True,
    "top_logprobs": 3,
    "seed": 2**60,
    "user": "u1",
    "tools": [
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA, "strict": False}},
        {"type": "custom", "custom": {"name": "g", "description": "d", "format": {"type": "text"}}},
    ],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "parallel_tool_calls": False,
    "functions": [{"name": "f", "description": "d", "parameters": SCHEMA}],
    "function_call": "auto",
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "s", "description": "d", "schema": SCHEMA, "strict": True},
    },
    "reasoning_effort": "low",
    "verbosity": "high",
    "service_tier": "flex",
    "prompt_cache_key": "k",
    "safety_identifier": "s",
    "prediction": {"type": "content", "content": [{"type": "text", "text": "x"}]},
    "modalities": ["text", "audio"],
    "audio": {"voice": {"id": "v"}, "format": "wav"},
    "web_search_options": {
        "search_context_size": "low",
        "user_location": {
            "type": "approximate",
            "approximate": {"city": "Bern", "country": "CH", "region": "Bern", "timezone": "Europe/Zurich"},
        },
    },
    "prompt_cache_retention": "24h",
    "prompt_cache_options": {"mode": "explicit", "ttl": "30m"},
    "moderation": {"model": "omni", "policy": {"input": {"mode": "block"}, "output": {"mode": "score"}}},
}


async def test_every_field_is_sent(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """Every documented field that is set is sent unchanged, and nothing else."""
    await backend.complete(call(**EVERYTHING))
    assert EVERYTHING | {"model": "target-1"} == upstream.requests[0].json


def test_no_field_is_forgotten() -> None:
    """The test above covers every field of requests and messages that is sent to the upstream."""
    fields = {field.name for field in json_fields(CreateChatCompletionRequest.DESCRIPTOR)}
    assert fields == {*EVERYTHING, *NOT_SENT, "model"}
    delivered = {name for message in EVERYTHING["messages"] for name in message}
    assert {field.name for field in json_fields(Message.DESCRIPTOR)} == {
        *delivered,
        "annotations",
        "extra",
        "extra_json",
    }


async def test_unset_fields_are_not_sent(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """Unset fields are not sent."""
    await backend.complete(call())
    assert {"model": "target-1", "messages": QUESTION["messages"]} == upstream.requests[0].json


async def test_parley_fields_are_not_sent(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """The session, `store` and `metadata` are not sent."""
    await backend.complete(call(chatSessionId="s", store=True, metadata={"a": "b"}, stream=False))
    assert {"model", "messages"} == set(upstream.requests[0].json)


async def test_request_line_and_headers(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """The key is sent in `authorization`; the path is the base URL's plus `/chat/completions`."""
    await backend.complete(call())
    request = upstream.requests[0]
    assert ("POST", "/v1/chat/completions") == (request.method, request.path)
    assert f"Bearer {KEY}" == request.headers["authorization"]
    assert "application/json" == request.headers["content-type"]
    assert "cookie" not in request.headers


async def test_no_key(upstream: ScriptedUpstream) -> None:
    """Without a key there is no `authorization` header; a trailing slash of the base URL is ignored."""
    backend = OpenAI(upstream.url + "/")
    await backend.complete(call())
    await backend.close()
    assert "authorization" not in upstream.requests[0].headers
    assert "/v1/chat/completions" == upstream.requests[0].path


async def test_cookies_are_not_stored(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """A cookie from one response is not sent with later requests."""
    upstream.answer(Json(completion(), headers={"Set-Cookie": "who=ada; Path=/"}))
    await backend.complete(call())
    await backend.complete(call())
    assert "cookie" not in upstream.requests[1].headers


async def test_streams_request_usage(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """A streaming request always includes `include_usage`."""
    await collect(backend, call(stream=True, stream_options={"include_usage": False}))
    sent = upstream.requests[0].json
    assert (True, {"include_usage": True}) == (sent["stream"], sent["stream_options"])


async def test_key_order(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """JSON Schemas given as text are sent unchanged and take precedence over the Struct."""
    exact = '{"zebra":{"type":"string"},"apple":1,"mango":[1.5,"ü"]}'
    upstream_call = call(tools=EVERYTHING["tools"], functions=EVERYTHING["functions"])
    upstream_call.request.tools[0].function.parameters_json = exact
    upstream_call.request.functions[0].parameters_json = exact
    upstream_call.request.response_format.type = "json_schema"
    upstream_call.request.response_format.json_schema.schema_json = exact
    await backend.complete(upstream_call)
    sent = upstream.requests[0].json
    found = [
        sent["tools"][0]["function"]["parameters"],
        sent["functions"][0]["parameters"],
        sent["response_format"]["json_schema"]["schema"],
    ]
    assert [exact] * 3 == [json.dumps(item, separators=(",", ":"), ensure_ascii=False) for item in found]
    assert ["name", "description", "parameters", "strict"] == list(sent["tools"][0]["function"])


@pytest.mark.parametrize("exact", ["[]", "{", "3", "", '{}, "model": "other"', "{}}"])
async def test_schema_must_be_an_object(backend: OpenAI, upstream: ScriptedUpstream, exact: str) -> None:
    """Text that is not a JSON object is rejected, so it cannot change the enclosing body."""
    upstream_call = call(tools=[{"type": "function", "function": {"name": "f"}}])
    upstream_call.request.tools[0].function.parameters_json = exact
    with pytest.raises(InvalidRequest):
        await backend.complete(upstream_call)
    assert [] == upstream.requests


async def test_integers(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """Integers inside JSON values are sent as integers."""
    await backend.complete(call(extra_body={"top_k": 40, "min_p": 0.05, "nested": {"list": [1, 2.5]}}))
    assert b'"top_k":40' in upstream.requests[0].raw
    assert b"[1,2.5]" in upstream.requests[0].raw


async def test_key_order_of_extra_body(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """`extra_body_json` takes precedence over the Struct and keeps key order and integers."""
    exact = '{"zebra":{"b":1,"a":[2.5,9007199254740993]},"apple":null}'
    upstream_call = call(extra_body={"top_k": 40})
    upstream_call.request.extra_body_json = exact
    await backend.complete(upstream_call)
    sent = upstream.requests[0].json
    assert exact == json.dumps(
        {key: sent[key] for key in sent if key not in ("model", "messages")}, separators=(",", ":")
    )


@pytest.mark.parametrize("exact", ["[]", "{", "3", "", "{}}", '{"model": "other"}', r'{"mod\u0065l": "other"}'])
async def test_extra_body_json_is_validated(backend: OpenAI, upstream: ScriptedUpstream, exact: str) -> None:
    """Text that is not a JSON object, or repeats a field, is rejected."""
    upstream_call = call()
    upstream_call.request.extra_body_json = exact
    with pytest.raises(InvalidRequest):
        await backend.complete(upstream_call)
    assert [] == upstream.requests


async def test_tool_choice_with_large_numbers(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """The exact text of a `Value` field replaces the field; other repeated fields are rejected."""
    choice = '{"type":"x","n":18446744073709551617,"d":0.10000000000000000001}'
    upstream_call = call(tool_choice={"type": "x", "n": 2**64, "d": 0.1})
    upstream_call.request.extra_body_json = f'{{"tool_choice": {choice}, "top_k": 1}}'
    await backend.complete(upstream_call)
    raw = upstream.requests[0].raw.decode()
    assert [1, 1] == [raw.count(choice), raw.count("tool_choice")]
    assert 1 == upstream.requests[0].json["top_k"]
    upstream_call.request.extra_body_json = f'{{"tool_choice": {choice}, "stop": "a"}}'
    with pytest.raises(InvalidRequest, match="stop"):
        await backend.complete(upstream_call)


async def test_extra_body(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """`extra_body` is merged into the body."""
    await backend.complete(call(extra_body={"top_k": 40}))
    assert 40 == upstream.requests[0].json["top_k"]


@pytest.mark.parametrize("key", ["model", "messages", "temperature", "stream", "store", "chatSessionId"])
async def test_extra_body_repeats_a_field(backend: OpenAI, upstream: ScriptedUpstream, key: str) -> None:
    """A key of `extra_body` that is a field of the request is rejected."""
    failed = await failure(backend, call(extra_body={key: 1}))
    assert (InvalidRequest, f"extra_body.{key}") == (type(failed), failed.param)
    assert [] == upstream.requests


async def test_unix_socket(tmp_path: Path) -> None:
    """The upstream may listen on a Unix socket."""
    with ScriptedUpstream(tmp_path / "up.sock") as upstream:
        backend = OpenAI("http://local/v1", unix_socket=tmp_path / "up.sock")
        answer = await backend.complete(call())
        await backend.close()
    assert "Hello there." == answer.choices[0].message.content.string_value
    assert "local" == upstream.requests[0].headers["host"]
