"""Complete answers of Anthropic's Messages API."""

import json
from typing import Any

import pytest
from google.protobuf import json_format

from parley.backends.anthropic.backend import Anthropic
from parley.core.errors import (
    StreamBroken,
    UpstreamUnreadable,
)
from tests.contract.anthropic_api import (
    begins,
    block_start,
    block_stop,
    delta,
    ends,
    event,
    message,
    start,
    stopped,
    text_block,
)
from tests.contract.backends import (
    broken_off,
    call,
    collect,
    failure,
    joined,
    reasons,
    text,
)
from tests.upstream import Events, ScriptedUpstream


async def test_full_answer(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """Text, thinking, tool calls, citations, usage and service tier are parsed; other blocks are kept."""
    citation = {"type": "char_location", "cited_text": "x", "document_index": 0}
    thinking = [{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "redacted_thinking", "data": "AA"}]
    blocks = [
        *thinking,
        text_block("Hel") | {"citations": [citation]},
        {"type": "server_tool_use", "id": "srv", "name": "web_search", "input": {}},
        text_block("lo") | {"citations": None},
        {"type": "tool_use", "id": "c1", "name": "f", "input": {"b": 1, "a": [2]}},
        {"type": "tool_use", "id": "c2", "name": "g", "input": {}, "caller": {"type": "direct"}},
    ]
    upstream.answer(
        message(
            *blocks,
            stop_reason="tool_use",
            stop_sequence="END",
            container={"id": "container_1"},
            usage={
                "input_tokens": 9,
                "cache_read_input_tokens": 20,
                "cache_creation_input_tokens": 3,
                "output_tokens": 8,
                "output_tokens_details": {"thinking_tokens": 5},
                "service_tier": "standard",
                "server_tool_use": {"web_search_requests": 1},
            },
        )
    )
    answer = json_format.MessageToDict(await backend.complete(call()), preserving_proto_field_name=True)
    found = json.loads(answer["choices"][0]["message"].pop("extra_json"))
    assert {"thinking_blocks": thinking, "content_blocks": blocks} == found
    assert {
        "choices": [
            {
                "index": 0,
                "finish_reason": "tool_calls",
                "extra_json": '{"stop_sequence":"END"}',
                "message": {
                    "role": "assistant",
                    "content": "Hello",
                    "reasoning_content": "hm",
                    "tool_calls": [
                        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"b":1,"a":[2]}'}},
                        {
                            "id": "c2",
                            "type": "function",
                            "function": {"name": "g", "arguments": "{}"},
                            "extra_json": '{"caller":{"type":"direct"}}',
                        },
                    ],
                    "annotations": [citation],
                },
            }
        ],
        "usage": {
            "prompt_tokens": 32,
            "completion_tokens": 8,
            "total_tokens": 40,
            "prompt_tokens_details": {"cached_tokens": 20, "cache_write_tokens": 3},
            "completion_tokens_details": {"reasoning_tokens": 5},
            "extra_json": '{"server_tool_use":{"web_search_requests":1}}',
        },
        "service_tier": "default",
        "extra_json": '{"container":{"id":"container_1"}}',
    } == answer


async def test_content_without_text(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """Content is null beside tool calls alone, and empty in an answer that a limit truncated."""
    called = {"type": "tool_use", "id": "c", "name": "f", "input": {}}
    upstream.answer(message(called, stop_reason="tool_use"), message(stop_reason="max_tokens"))
    kinds = [(await backend.complete(call())).choices[0].message.content.WhichOneof("kind") for _ in range(2)]
    assert ["null_value", "string_value"] == kinds


REASONS = [
    ("end_turn", "stop"),
    ("stop_sequence", "stop"),
    ("max_tokens", "length"),
    ("model_context_window_exceeded", "length"),
    ("pause_turn", "length"),
    ("tool_use", "tool_calls"),
    ("refusal", "content_filter"),
]


@pytest.mark.parametrize("reason", ["something_new", "error"])
async def test_unknown_stop_reason(backend: Anthropic, upstream: ScriptedUpstream, reason: str) -> None:
    """An unknown stop reason is a failure, streaming or not; earlier text is delivered."""
    upstream.answer(
        message(text_block("x"), stop_reason=reason), Events([*begins(), delta(text="x"), *stopped(reason)])
    )
    assert UpstreamUnreadable is type(await failure(backend, call()))
    chunks, broken = await broken_off(backend, call())
    assert ("x", [], StreamBroken) == (text(chunks), reasons(chunks), type(broken))


@pytest.mark.parametrize("reason", ["end_turn", None])
async def test_empty_answer(backend: Anthropic, upstream: ScriptedUpstream, reason: str | None) -> None:
    """An answer without output is a failure, unless a stop sequence may have ended it."""
    empty = message() | {"stop_reason": reason}
    ends = stopped(reason) if reason else [event("message_stop")]
    upstream.answer(empty, Events([start(), *ends]), message(stop_reason="end_turn"), Events([start(), *stopped()]))
    assert UpstreamUnreadable is type(await failure(backend, call()))
    assert StreamBroken is type(await failure(backend, call(), stream=True))
    upstream_call = call(stop=["x"])
    assert "" == (await backend.complete(upstream_call)).choices[0].message.content.string_value
    assert ["stop"] == reasons(await collect(backend, upstream_call))


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"input_tokens": "9", "output_tokens": 3.0}, (9, 3, 12)),
        ({"input_tokens": 9, "output_tokens": -35}, (9, 0, 9)),
        (3, (0, 0, 0)),
        (None, (0, 0, 0)),
        ({"input_tokens": 9, "output_tokens": 3, "service_tier": ["x"]}, (9, 3, 12)),
    ],
)
async def test_malformed_usage(
    backend: Anthropic, upstream: ScriptedUpstream, usage: Any, expected: tuple[int, int, int]
) -> None:
    """Malformed counts are dropped, streaming or not; the answer is delivered."""
    body = message(text_block("x"), usage=usage)
    upstream.answer(body, Events([event("message_start", message=body), *begins()[1:], delta(text="x"), *ends()]))
    answer = await backend.complete(call())
    assert ("x", expected[2]) == (answer.choices[0].message.content.string_value, answer.usage.total_tokens)
    assert (expected[0], expected[1]) == (answer.usage.prompt_tokens, answer.usage.completion_tokens)
    assert "x" == text(await collect(backend, call()))


async def test_invalid_json_text(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """Split surrogates are joined and invalid UTF-8 is replaced, in texts and in arguments."""
    piece = 'data: {"type":"content_block_delta","index":INDEX,"delta":{"type":"KIND","FIELD":"VALUE"}}\n\n'
    text_piece = piece.replace("INDEX", "0").replace("KIND", "text_delta").replace("FIELD", "text")
    of_call = piece.replace("INDEX", "1").replace("KIND", "input_json_delta").replace("FIELD", "partial_json")
    texts = [text_piece.replace("VALUE", half) for half in (r"a\ud83d", r"\ude00b")]
    raw = text_piece.replace("VALUE", "\udcff").encode(errors="surrogateescape")
    pieces = [of_call.replace("VALUE", half) for half in (r"{\"x\":\"\ud83d", r"\ude00\"}")]
    opens = block_start(1, type="tool_use", id="c", name="f", input={})
    steps = [*begins(), *texts, raw, opens, *pieces, block_stop(1), *stopped("tool_use")]
    upstream.answer(Events(steps))
    message_ = joined(await collect(backend, call()))
    assert "a\U0001f600b\ufffd" == message_.content.string_value
    assert '{"x":"\U0001f600"}' == message_.tool_calls[0].function.arguments


async def test_incomplete_tool_calls(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """A call without an id gets one, a call without input an empty object; large integers are preserved."""
    non_streaming = {"type": "tool_use", "id": 3, "name": "g", "input": {"n": 2**70}}
    calls: list[dict[str, Any]] = [{"type": "tool_use", "name": "f"}, non_streaming]
    steps = [start()]
    for index, block in enumerate(calls):
        steps += [block_start(index, **block), block_stop(index)]
    upstream.answer(message(*calls, stop_reason="tool_use"), Events([*steps, *stopped("tool_use")]))
    for found in ((await backend.complete(call())).choices[0].message, joined(await collect(backend, call()))):
        assert [("f", "{}"), ("g", '{"n":1180591620717411303424}')] == [
            (made.function.name, made.function.arguments) for made in found.tool_calls
        ]
        assert 2 == len({made.id for made in found.tool_calls if made.id.startswith("call_")})


@pytest.mark.parametrize(("reason", "expected"), REASONS)
async def test_stop_reasons(backend: Anthropic, upstream: ScriptedUpstream, reason: str, expected: str) -> None:
    """Each stop reason maps to its finish reason, streaming or not."""
    upstream.answer(
        message(text_block("x"), stop_reason=reason), Events([*begins(), delta(text="x"), *stopped(reason)])
    )
    assert expected == (await backend.complete(call())).choices[0].finish_reason
    assert [expected] == reasons(await collect(backend, call()))


async def test_refusal_is_explained(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """The explanation of a refusal becomes `refusal`, streaming or not."""
    details = {"type": "refusal", "category": "bio", "explanation": "Not that."}
    end = event("message_delta", delta={"stop_reason": "refusal", "stop_details": details}, usage={"output_tokens": 3})
    upstream.answer(
        message(text_block("Well"), stop_reason="refusal", stop_details=details),
        Events([*begins(), delta(text="Well"), end, event("message_stop")]),
    )
    assert "Not that." == (await backend.complete(call())).choices[0].message.refusal
    chunks = await collect(backend, call())
    assert "Not that." == "".join(choice.delta.refusal for chunk in chunks for choice in chunk.choices)
