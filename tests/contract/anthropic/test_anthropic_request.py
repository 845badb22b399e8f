"""Requests to Anthropic's Messages API: headers and parameters."""

import json
from typing import Any

import pytest

from parley.backends.anthropic.backend import Anthropic
from parley.backends.anthropic.request import SENT
from parley.backends.json_fidelity import PARLEY_FIELDS
from parley.config import ConfigError
from parley.core.errors import InvalidRequest, UnsupportedParameter
from parley.core.messages.typed_fields import json_fields
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from tests.contract.anthropic.requests import SCHEMA, TOOL, rejection, sent
from tests.contract.anthropic.test_anthropic_tools import TOOLS
from tests.contract.anthropic_api import begins, delta, ends, text_block
from tests.contract.backends import KEY, call, collect
from tests.upstream import Events, ScriptedUpstream


async def test_request_line_and_headers(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """The key is sent in `x-api-key`, and the API version in its header."""
    await backend.complete(call())
    request = upstream.requests[0]
    assert ("POST", "/v1/messages") == (request.method, request.path)
    assert (KEY, "2023-06-01") == (request.headers["x-api-key"], request.headers["anthropic-version"])
    assert "application/json" == request.headers["content-type"]
    assert "authorization" not in request.headers


async def test_no_key(upstream: ScriptedUpstream) -> None:
    """Without a key there is no `x-api-key`; a trailing slash of the base URL is ignored."""
    backend = Anthropic(f"http://{upstream.address}/", None, 1000)
    await backend.complete(call())
    await backend.close()
    assert "x-api-key" not in upstream.requests[0].headers
    assert "/v1/messages" == upstream.requests[0].path


def test_invalid_key() -> None:
    """A key that is not a valid header value raises ConfigError."""
    with pytest.raises(ConfigError):
        Anthropic("http://127.0.0.1", "sk-ant\n", 1000)


async def test_minimal_body(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """Only set fields are sent, and the token limit that the API requires."""
    expected = {"model": "target-1", "max_tokens": 1000, "messages": [{"role": "user", "content": [text_block("hi")]}]}
    assert expected == await sent(backend, upstream)


async def test_stream_is_requested(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """A streaming request sets `stream`."""
    upstream.answer(Events([*begins(), delta(text="x"), *ends()]))
    await collect(backend, call(stream=True, stream_options={"include_usage": True}))
    assert upstream.requests[0].json["stream"] is True
    assert "stream_options" not in upstream.requests[0].json


PLAIN: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"max_tokens": 7}, {"max_tokens": 7}),
    ({"max_completion_tokens": 7}, {"max_tokens": 7}),
    ({"max_completion_tokens": 9, "max_tokens": 7}, {"max_tokens": 7}),
    ({"temperature": 0.0}, {"temperature": 0.0}),
    ({"temperature": 1.0}, {"temperature": 1.0}),
    ({"top_p": 0.25}, {"top_p": 0.25}),
    ({"stop": "a"}, {"stop_sequences": ["a"]}),
    ({"stop": ["a", "b"]}, {"stop_sequences": ["a", "b"]}),
    ({"stop": None}, {}),
    ({"user": "u"}, {"metadata": {"user_id": "u"}}),
    ({"safety_identifier": "s"}, {"metadata": {"user_id": "s"}}),
    ({"safety_identifier": "s", "user": "s"}, {"metadata": {"user_id": "s"}}),
    ({"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}),
    *(
        ({"reasoning_effort": effort}, {"output_config": {"effort": effort}})
        for effort in ("low", "medium", "high", "xhigh", "max")
    ),
    ({"response_format": {"type": "text"}}, {}),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA, "strict": True}}},
        {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
    ),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {}}}},
        {"output_config": {"format": {"type": "json_schema", "schema": {}}}},
    ),
    (
        {
            "reasoning_effort": "low",
            "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA}},
        },
        {"output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}}},
    ),
    ({"service_tier": "auto"}, {"service_tier": "auto"}),
    ({"service_tier": "default"}, {"service_tier": "standard_only"}),
    ({"service_tier": "standard_only"}, {"service_tier": "standard_only"}),
    ({"extra_body": {"top_k": 40, "thinking": {"type": "adaptive"}}}, {"top_k": 40, "thinking": {"type": "adaptive"}}),
    ({"extra_body_json": '{"top_k": 40}', "extra_body": {"top_k": 1}}, {"top_k": 40}),
]


@pytest.mark.parametrize(("fields", "expected"), PLAIN)
async def test_parameters(
    backend: Anthropic, upstream: ScriptedUpstream, fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    """Each parameter is sent under Anthropic's name, and nothing else."""
    body = await sent(backend, upstream, **fields)
    base = {"model": "target-1", "max_tokens": 1000, "messages": [{"role": "user", "content": [text_block("hi")]}]}
    assert base | expected == body


async def test_extra_body_json(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """`extra_body_json` keeps key order and integers."""
    exact = '{"zebra":{"b":1,"a":[2.5,9007199254740993]},"apple":null}'
    body = await sent(backend, upstream, extra_body_json=exact)
    assert exact == json.dumps({key: body[key] for key in ("zebra", "apple")}, separators=(",", ":"))


@pytest.mark.parametrize("key", ["model", "messages", "temperature", "stream", "max_tokens", "metadata"])
async def test_extra_body_repeats_a_field(backend: Anthropic, upstream: ScriptedUpstream, key: str) -> None:
    """A key of `extra_body` that is a field of the request is rejected."""
    error = await rejection(backend, upstream, extra_body={key: 1})
    assert (InvalidRequest, f"extra_body.{key}") == (type(error), error.param)


@pytest.mark.parametrize(
    ("key", "fields"),
    [
        ("thinking", {"reasoning_effort": "none"}),
        ("output_config", {"reasoning_effort": "low"}),
        ("stop_sequences", {"stop": "a"}),
        ("system", {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]}),
    ],
)
async def test_extra_body_contradicts_a_field(
    backend: Anthropic, upstream: ScriptedUpstream, key: str, fields: dict[str, Any]
) -> None:
    """A key of `extra_body` that a field was converted to is rejected."""
    error = await rejection(backend, upstream, extra_body={key: {}}, **fields)
    assert (InvalidRequest, f"extra_body.{key}") == (type(error), error.param)


UNSUPPORTED: list[tuple[dict[str, Any], str]] = [
    ({"n": 2}, "n"),
    ({"logprobs": True}, "logprobs"),
    ({"top_logprobs": 3}, "top_logprobs"),
    ({"seed": 0}, "seed"),
    ({"presence_penalty": 0.5}, "presence_penalty"),
    ({"frequency_penalty": -0.5}, "frequency_penalty"),
    ({"logit_bias": {"5": 1}}, "logit_bias"),
    ({"functions": [{"name": "f"}]}, "functions"),
    ({"function_call": "auto"}, "function_call"),
    ({"verbosity": "low"}, "verbosity"),
    ({"prompt_cache_key": "k"}, "prompt_cache_key"),
    ({"prompt_cache_retention": "24h"}, "prompt_cache_retention"),
    ({"prompt_cache_options": {"mode": "explicit"}}, "prompt_cache_options"),
    ({"moderation": {"model": "omni"}}, "moderation"),
    ({"prediction": {"type": "content", "content": "x"}}, "prediction"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"audio": {"voice": "v", "format": "wav"}}, "audio"),
    ({"web_search_options": {}}, "web_search_options"),
    ({"temperature": 1.1}, "temperature"),
    ({"reasoning_effort": "minimal"}, "reasoning_effort"),
    ({"service_tier": "flex"}, "service_tier"),
    ({"service_tier": "priority"}, "service_tier"),
    ({"user": "u", "safety_identifier": "s"}, "user"),
    ({"response_format": {"type": "json_object"}}, "response_format.type"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "description": "d", "schema": {}}}},
        "response_format.json_schema.description",
    ),
    ({"tools": [{"type": "custom", "custom": {"name": "g"}}]}, "tools[0].type"),
    ({"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "allowed_tools": {}}}, "tool_choice"),
]


@pytest.mark.parametrize(("fields", "param"), UNSUPPORTED)
async def test_unsupported(backend: Anthropic, upstream: ScriptedUpstream, fields: dict[str, Any], param: str) -> None:
    """A field without an equivalent is rejected by name, and nothing is sent."""
    error = await rejection(backend, upstream, **fields)
    assert (UnsupportedParameter, param) == (type(error), error.param)
    assert 'by the model "myapp-123"' in error.message


@pytest.mark.parametrize(
    "fields",
    [{"n": 1}, {"logprobs": False}, {"presence_penalty": 0}, {"frequency_penalty": 0}, {"modalities": ["text"]}],
)
async def test_values_without_effect(backend: Anthropic, upstream: ScriptedUpstream, fields: dict[str, Any]) -> None:
    """Values without effect are accepted and not sent."""
    assert {"model", "max_tokens", "messages"} == set(await sent(backend, upstream, **fields))


OURS: dict[str, Any] = {
    "session_id": "s",
    "store": True,
    "metadata": {"a": "b"},
    "stream": False,
    "stream_options": {"include_usage": True},
    "continue_final_message": False,
}


async def test_parley_fields_are_not_sent(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """The session, `store`, `metadata` and the stream options are not sent."""
    assert {"model", "max_tokens", "messages"} == set(await sent(backend, upstream, **OURS))


def test_no_field_is_forgotten() -> None:
    """The tests above cover each request field: sent, specific to Parley, or rejected."""
    fields = {field.name for field in json_fields(CreateChatCompletionRequest.DESCRIPTOR)}
    refused_fields = {param for _, param in UNSUPPORTED if param in fields}
    assert fields == PARLEY_FIELDS | SENT | refused_fields
    shown = {name for fields, _ in PLAIN + TOOLS for name in fields}
    assert shown | {"model", "messages"} == SENT
    assert set(OURS) == PARLEY_FIELDS
