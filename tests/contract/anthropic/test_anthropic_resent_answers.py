"""Answers of Anthropic's Messages API that are sent back: signed thinking, server tools and citations."""

import json
from typing import Any

import pytest

from parley.backends.anthropic.backend import Anthropic
from parley.core.errors import UpstreamError
from parley.v1.message_pb2 import Message
from tests.contract.anthropic.blocks import RESULT, THOUGHT, USE, USER
from tests.contract.anthropic.requests import sent
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
    streamed,
    text_block,
)
from tests.contract.backends import call, collect, completion_of, joined
from tests.upstream import Events, Json, ScriptedUpstream

REDACTED = {"type": "redacted_thinking", "data": "EmwKAhgB"}
SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}
FOUND = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [{"encrypted_content": "Eq"}]}
CITED = text_block("x") | {"citations": [{"type": "web_search_result_location", "url": "u", "encrypted_index": "Eo"}]}


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
