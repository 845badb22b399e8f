"""Anthropic fields without an equivalent in OpenAI's API: caching, signed thinking, Anthropic's own tools."""

import json
from typing import Any

import pytest

from parley.backends.anthropic.backend import Anthropic
from parley.core.errors import InvalidRequest, UnsupportedParameter, UpstreamError
from parley.core.streaming.accumulator import CompletionAccumulator
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk
from parley.v1.message_pb2 import Message
from tests.contract.anthropic.test_anthropic_request import SCHEMA, TOOL, refused, sent
from tests.contract.anthropic_api import (
    begins,
    block_start,
    block_stop,
    delta,
    ends,
    error,
    event,
    message,
    start,
    stopped,
    text_block,
)
from tests.contract.backends import call, collect, completion_of
from tests.upstream import Events, Json, ScriptedUpstream

CACHE = {"type": "ephemeral", "ttl": "1h"}
MARK = json.dumps({"cache_control": CACHE})
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "EqQBCgIYAhIM"}
REDACTED = {"type": "redacted_thinking", "data": "EmwKAhgB"}
USE = {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"b": 18446744073709551615, "a": 1}}
USER = {"role": "user", "content": "hi"}
RESULT = {"role": "tool", "tool_call_id": "toolu_1", "content": "42"}
SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [{"encrypted_content": "Eq"}]}
CITED = text_block("x") | {"citations": [{"type": "web_search_result_location", "url": "u", "encrypted_index": "Eo"}]}


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
    failed = await refused(backend, upstream, **fields)
    assert (UnsupportedParameter, param) == (type(failed), failed.param)


async def test_text_that_is_no_object(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """Text that is not a JSON object is rejected."""
    for fields in ({"messages": [USER | {"extra_json": "[]"}]}, {"tools": [TOOL | {"extra_json": "{"}]}):
        assert InvalidRequest is type(await refused(backend, upstream, **fields))


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


def streamed(*blocks: dict[str, Any]) -> Events:
    """Creates the stream of an answer with these blocks, split into deltas where possible."""
    steps: list[Any] = [start()]
    for index, block in enumerate(blocks):
        match block["type"]:
            case "thinking":
                steps.append(block_start(index, type="thinking", thinking="", signature=""))
                steps += [delta("thinking_delta", index, thinking=letter) for letter in block["thinking"]]
                steps.append(delta("signature_delta", index, signature=block["signature"]))
            case "text":
                steps += [block_start(index), *(delta("text_delta", index, text=letter) for letter in block["text"])]
                steps += [delta("citations_delta", index, citation=found) for found in block.get("citations", ())]
            case "tool_use" | "server_tool_use":
                steps.append(block_start(index, **block | {"input": {}}))
                text = json.dumps(block["input"])
                steps += [delta("input_json_delta", index, partial_json=piece) for piece in (text[:7], text[7:])]
            case _:
                steps.append(block_start(index, **block))
        steps.append(block_stop(index))
    return Events([*steps, *stopped("tool_use" if blocks[-1]["type"] == "tool_use" else "end_turn")])


def joined(chunks: list[ChatCompletionChunk]) -> Message:
    """Returns the accumulated message of a stream."""
    accumulator = CompletionAccumulator(ChatCompletion())
    for chunk in chunks:
        accumulator.add(chunk)
    return accumulator.completion().choices[0].message


async def answered(backend: Anthropic, upstream: ScriptedUpstream, *blocks: dict[str, Any], stream: bool) -> Message:
    """Returns the message parsed from an answer with these blocks."""
    if stream:
        upstream.answer(streamed(*blocks))
        return joined(await collect(backend, call()))
    upstream.answer(message(*blocks, stop_reason="tool_use"))
    return (await backend.complete(call())).choices[0].message


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "blocks",
    [
        [THOUGHT, USE],
        [THOUGHT, REDACTED, text_block("Let me see."), USE],
        [THOUGHT, text_block("Let me see."), THOUGHT | {"thinking": "ah"}, USE],
        [SEARCH, FOUND, CITED, text_block("y"), USE],
        [text_block("Let me see."), USE | {"caller": {"type": "direct"}}],
    ],
    ids=["a call", "redacted", "between", "server tools", "a caller"],
)
async def test_blocks_are_sent_back(
    backend: Anthropic, upstream: ScriptedUpstream, blocks: list[dict[str, Any]], stream: bool
) -> None:
    """Signed thinking, server tools and citations are sent back unchanged in the next turn."""
    previous_answer = await answered(backend, upstream, *blocks, stream=stream)
    upstream_call = call(messages=[USER, RESULT])
    upstream_call.request.messages.insert(1, previous_answer)
    await backend.complete(upstream_call)
    assert blocks == upstream.requests[-1].json["messages"][1]["content"]


async def test_an_answer_that_the_caller_changed(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """For a modified answer, the caller's text and the thinking blocks are sent."""
    previous_answer = await answered(backend, upstream, THOUGHT, SEARCH, FOUND, CITED, stream=False)
    previous_answer.content.string_value = "shorter"
    upstream_call = call(messages=[USER, USER])
    upstream_call.request.messages.insert(1, previous_answer)
    await backend.complete(upstream_call)
    assert [THOUGHT, text_block("shorter")] == upstream.requests[-1].json["messages"][1]["content"]


@pytest.mark.parametrize(
    "found",
    [
        '[{"type":"thinking","thinking":"hm"}]',
        '[{"type":"thinking","thinking":"hm","signature":""}]',
        '"x"',
        "[1]",
        "null",
    ],
)
async def test_thinking_without_a_signature(backend: Anthropic, upstream: ScriptedUpstream, found: str) -> None:
    """Thinking without a signature is dropped, because the API rejects it."""
    earlier = {"role": "assistant", "content": "b", "extra_json": f'{{"thinking_blocks":{found}}}'}
    body = await sent(backend, upstream, messages=[USER, earlier, USER])
    assert [text_block("b")] == body["messages"][1]["content"]


@pytest.mark.parametrize("stream", [False, True])
async def test_rejected_signature(backend: Anthropic, upstream: ScriptedUpstream, stream: bool) -> None:
    """Thinking of another model is dropped, and the call is retried."""
    earlier = {"role": "assistant", "content": "b", "extra_json": json.dumps({"thinking_blocks": [THOUGHT]})}
    upstream_call = call(messages=[USER, earlier, USER])
    message = "messages.1.content.0: Invalid `signature` in `thinking` block"
    upstream.answer(Json(error("invalid_request_error", message), 400))
    if stream:
        upstream.answer(Events([*begins(), delta(text="x"), *ends()]))
    assert await collect(backend, upstream_call) if stream else await backend.complete(upstream_call)
    sent_ = [received.json["messages"][1]["content"] for received in upstream.requests]
    assert [[THOUGHT, text_block("b")], [text_block("b")]] == sent_


async def test_other_rejections(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """Other rejections are not retried."""
    upstream.answer(Json(error("invalid_request_error", "Invalid `signature` in `thinking` block"), 400))
    with pytest.raises(UpstreamError):
        await backend.complete(call())
    assert 1 == len(upstream.requests)


async def test_unknown_fields_of_a_streamed_answer(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """Unknown fields in the final events of a stream are kept."""
    why = {"stop_reason": "stop_sequence", "stop_sequence": "END", "container": {"id": "c"}}
    counted = {"output_tokens": 3, "server_tool_use": {"web_search_requests": 2}}
    edits: dict[str, Any] = {"applied_edits": []}
    end = [event("message_delta", delta=why, usage=counted, context_management=edits), event("message_stop")]
    upstream.answer(Events([*begins(), delta(text="x"), block_stop(), *end]))
    answer = completion_of(await collect(backend, call()))
    assert {"stop_sequence": "END"} == json.loads(answer.choices[0].extra_json)
    assert {"container": {"id": "c"}, "context_management": edits} == json.loads(answer.extra_json)
    assert {"server_tool_use": {"web_search_requests": 2}} == json.loads(answer.usage.extra_json)


async def test_truncated_tool_call(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """Truncated arguments do not invalidate the answer, whatever other blocks it has."""
    steps = [start(), block_start(0, **SEARCH), block_stop(0), block_start(1, **USE | {"input": {}})]
    upstream.answer(
        Events([*steps, delta("input_json_delta", 1, partial_json='{"b": 1'), block_stop(1), *stopped("max_tokens")])
    )
    [choice] = completion_of(await collect(backend, call())).choices
    assert "length" == choice.finish_reason
    kept = json.loads(choice.message.extra_json)["content_blocks"]
    assert {} == kept[1]["input"]
