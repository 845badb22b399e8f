"""Anthropic fields without an equivalent in OpenAI's API, in requests: caching, and Anthropic's own tools and parts."""

import json
from typing import Any

import pytest

from parley.backends.anthropic.backend import Anthropic
from parley.core.errors import InvalidRequest, UnsupportedParameter
from tests.contract.anthropic.blocks import USER
from tests.contract.anthropic.requests import SCHEMA, TOOL, rejection, sent
from tests.contract.anthropic_api import (
    text_block,
)
from tests.upstream import ScriptedUpstream

CACHE = {"type": "ephemeral", "ttl": "1h"}
MARK = json.dumps({"cache_control": CACHE})


async def test_cache_control_of_messages(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """`cache_control` is moved to the last block of a message without its own, to tool results and tool calls."""
    called = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}, "extra_json": MARK}
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    own = {"type": "text", "text": "c", "cache_control": {"type": "ephemeral"}}
    body = await sent(
        backend,
        upstream,
        messages=[
            {"role": "system", "content": "s", "extra_json": MARK},
            {"role": "user", "content": parts, "extra_json": MARK},
            {"role": "assistant", "content": "d", "tool_calls": [called]},
            {
                "role": "tool",
                "tool_call_id": "c",
                "content": "1",
                "extra_json": json.dumps({"is_error": True, "cache_control": CACHE}),
            },
            {"role": "user", "content": [own], "extra_json": MARK},
        ],
    )
    assert [text_block("s", cache_control=CACHE)] == body["system"]
    first, answer, last = [entry["content"] for entry in body["messages"]]
    assert [text_block("a"), text_block("b", cache_control=CACHE)] == first
    assert [
        text_block("d"),
        {"type": "tool_use", "id": "c", "name": "f", "input": {}, "cache_control": CACHE},
    ] == answer
    result = {
        "type": "tool_result",
        "tool_use_id": "c",
        "content": [text_block("1")],
        "is_error": True,
        "cache_control": CACHE,
    }
    assert [result, own] == last


async def test_unknown_fields_of_tools(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """Unknown tool fields that the API supports are sent, from the tool or from its function."""
    outside = TOOL | {"extra_json": MARK}
    inside = {"type": "function", "function": {"name": "g", "extra_json": '{"cache_control":{},"defer_loading":true}'}}
    tools = (await sent(backend, upstream, tools=[outside, inside]))["tools"]
    assert {"name": "f", "description": "d", "input_schema": SCHEMA, "strict": True, "cache_control": CACHE} == tools[0]
    assert ({}, True) == (tools[1]["cache_control"], tools[1]["defer_loading"])


async def test_the_vendor_s_own_tools(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """Anthropic's tools, and a choice in Anthropic's format, are sent unchanged."""
    own = {"type": "web_search_20250305", "extra_json": '{"name":"web_search","max_uses":5}'}
    body = await sent(backend, upstream, tools=[own, TOOL], tool_choice={"type": "tool", "name": "web_search"})
    assert {"type": "web_search_20250305", "name": "web_search", "max_uses": 5} == body["tools"][0]
    assert {"type": "tool", "name": "web_search"} == body["tool_choice"]


@pytest.mark.parametrize(
    "block",
    [
        {"type": "document", "source": {"type": "text", "data": "d"}, "citations": {"enabled": True}},
        {"type": "image", "source": {"type": "file", "file_id": "f"}},
    ],
)
async def test_the_vendor_s_own_parts(backend: Anthropic, upstream: ScriptedUpstream, block: dict[str, Any]) -> None:
    """Anthropic's content blocks are sent unchanged."""
    body = await sent(backend, upstream, messages=[{"role": "user", "content": [block]}])
    assert [block] == body["messages"][0]["content"]


@pytest.mark.parametrize("kind", ["custom", "web_search", "builtin_function"])
async def test_tools_that_must_not_be_called(backend: Anthropic, upstream: ScriptedUpstream, kind: str) -> None:
    """With `tool_choice: none`, unsupported tools are dropped."""
    tools = [TOOL, {"type": kind}]
    body = await sent(backend, upstream, tools=tools, tool_choice="none")
    assert (["f"], {"type": "none"}) == ([tool["name"] for tool in body["tools"]], body["tool_choice"])
    assert not {"tools", "tool_choice"} & (await sent(backend, upstream, tools=tools[1:], tool_choice="none")).keys()


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [USER | {"extra_json": '{"foo":1}'}]}, "messages[0].foo"),
        (
            {"messages": [{"role": "system", "content": "s", "extra_json": '{"prefix":true}'}, USER]},
            "messages[0].prefix",
        ),
        ({"messages": [USER], "tools": [TOOL | {"extra_json": '{"foo":1}'}]}, "tools[0].foo"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "extra_json": '{"foo":1}'}}]},
            "tools[0].function.foo",
        ),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function", "function": {"name": "files.read"}}]}, "tools[0].function.name"),
        ({"tools": [TOOL], "tool_choice": "several"}, "tool_choice"),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "s", "schema": {}},
                    "extra_json": '{"x":1}',
                }
            },
            "response_format.x",
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "s", "schema": {}, "extra_json": '{"x":1}'},
                }
            },
            "response_format.json_schema.x",
        ),
        ({"stream": True, "stream_options": {"extra_json": '{"x":1}'}}, "stream_options.x"),
    ],
)
async def test_unknown_fields_that_the_api_does_not_have(
    backend: Anthropic, upstream: ScriptedUpstream, fields: dict[str, Any], param: str
) -> None:
    """Unknown fields that the API does not support are rejected by name."""
    failed = await rejection(backend, upstream, **fields)
    assert (UnsupportedParameter, param) == (type(failed), failed.param)


async def test_text_that_is_no_object(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """Text that is not a JSON object is rejected."""
    for fields in ({"messages": [USER | {"extra_json": "[]"}]}, {"tools": [TOOL | {"extra_json": "{"}]}):
        assert InvalidRequest is type(await rejection(backend, upstream, **fields))


async def test_fields_of_other_vendors_answers(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """Unknown fields of another vendor's answers are dropped."""
    called = {
        "id": "c",
        "type": "function",
        "function": {"name": "f", "arguments": "{}"},
        "extra_json": '{"extra_content":{}}',
    }
    other = {
        "role": "assistant",
        "content": "a",
        "tool_calls": [called],
        "extra_json": '{"reasoning_details":[],"images":[1]}',
    }
    body = await sent(backend, upstream, messages=[USER, other, {"role": "tool", "tool_call_id": "c", "content": "1"}])
    assert [text_block("a"), {"type": "tool_use", "id": "c", "name": "f", "input": {}}] == body["messages"][1][
        "content"
    ]
