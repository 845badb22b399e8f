"""Tools in requests to Anthropic's Messages API."""

import json
from typing import Any

import pytest

from parley.backends.anthropic.backend import Anthropic
from parley.core.errors import InvalidRequest
from tests.contract.anthropic.requests import SCHEMA, TOOL, rejection, sent
from tests.contract.backends import call
from tests.upstream import ScriptedUpstream

INPUT = {"name": "f", "description": "d", "input_schema": SCHEMA, "strict": True}
EMPTY = {"type": "object", "properties": {}}
TOOLS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"tools": [INPUT]}),
    ({"tool_choice": None}, {"tools": [INPUT]}),
    ({"tool_choice": "auto"}, {"tools": [INPUT], "tool_choice": {"type": "auto"}}),
    ({"tool_choice": "none"}, {"tools": [INPUT], "tool_choice": {"type": "none"}}),
    ({"tool_choice": "required"}, {"tools": [INPUT], "tool_choice": {"type": "any"}}),
    ({"tool_choice": "any"}, {"tools": [INPUT], "tool_choice": {"type": "any"}}),
    (
        {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        {"tools": [INPUT], "tool_choice": {"type": "tool", "name": "f"}},
    ),
    ({"parallel_tool_calls": True}, {"tools": [INPUT]}),
    (
        {"parallel_tool_calls": False},
        {"tools": [INPUT], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
    ),
    (
        {"parallel_tool_calls": False, "tool_choice": "required"},
        {"tools": [INPUT], "tool_choice": {"type": "any", "disable_parallel_tool_use": True}},
    ),
    (
        {"parallel_tool_calls": False, "tool_choice": {"type": "function", "function": {"name": "f"}}},
        {"tools": [INPUT], "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True}},
    ),
    ({"parallel_tool_calls": False, "tool_choice": "none"}, {"tools": [INPUT], "tool_choice": {"type": "none"}}),
    ({"tools": [{"type": "function", "function": {"name": "g"}}]}, {"tools": [{"name": "g", "input_schema": EMPTY}]}),
    (
        {"tools": [{"type": "function", "function": {"name": "g", "parameters": {}}}]},
        {"tools": [{"name": "g", "input_schema": EMPTY}]},
    ),
    (
        {"tools": [{"type": "function", "function": {"name": "g", "parameters_json": " { } "}}]},
        {"tools": [{"name": "g", "input_schema": EMPTY}]},
    ),
    ({"tools": [], "tool_choice": "auto", "parallel_tool_calls": False}, {}),
]


@pytest.mark.parametrize(("fields", "expected"), TOOLS)
async def test_tools(
    backend: Anthropic, upstream: ScriptedUpstream, fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    """Tools and `tool_choice` are converted; without tools neither is sent."""
    body = await sent(backend, upstream, **({"tools": [TOOL]} | fields))
    assert expected == {name: body[name] for name in ("tools", "tool_choice") if name in body}


@pytest.mark.parametrize("choice", [{}, {"type": "function"}, {"function": {}}, {"function": {"name": 3}}])
async def test_tool_choice_without_a_name(
    backend: Anthropic, upstream: ScriptedUpstream, choice: dict[str, Any]
) -> None:
    """A choice that names no tool is rejected."""
    error = await rejection(backend, upstream, tools=[TOOL], tool_choice=choice)
    assert (InvalidRequest, "tool_choice") == (type(error), error.param)


async def test_key_order(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """Schemas and arguments given as text keep their key order."""
    exact = '{"zebra":{"type":"string"},"apple":9007199254740993,"mango":[1.5,"ü"]}'
    function = {"id": "c", "function": {"name": "f", "arguments": exact}}
    answer = {"role": "tool", "tool_call_id": "c", "content": "42"}
    upstream_call = call(tools=[TOOL], messages=[{"role": "assistant", "tool_calls": [function]}, answer])
    upstream_call.request.tools[0].function.parameters_json = exact
    upstream_call.request.response_format.type = "json_schema"
    upstream_call.request.response_format.json_schema.schema_json = exact
    await backend.complete(upstream_call)
    body = upstream.requests[0].json
    found = [
        body["tools"][0]["input_schema"],
        body["output_config"]["format"]["schema"],
        body["messages"][0]["content"][0]["input"],
    ]
    assert [exact] * 3 == [json.dumps(item, separators=(",", ":"), ensure_ascii=False) for item in found]


async def test_tool_choice_with_large_numbers(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """A choice in Anthropic's format is sent exactly; one in OpenAI's format is translated."""
    tools = [{"type": "function", "function": {"name": "f"}}]
    fields: dict[str, Any] = {"tools": tools, "parallel_tool_calls": False}
    native = {"type": "tool", "name": "f", "n": 2**64 + 1}
    body = await sent(
        backend, upstream, **fields, tool_choice=native, extra_body_json=json.dumps({"tool_choice": native})
    )
    assert native | {"disable_parallel_tool_use": True} == body["tool_choice"]
    choice = {"type": "function", "function": {"name": "f", "n": 2**64 + 1}}
    body = await sent(
        backend, upstream, **fields, tool_choice=choice, extra_body_json=json.dumps({"tool_choice": choice})
    )
    assert {"type": "tool", "name": "f", "disable_parallel_tool_use": True} == body["tool_choice"]
