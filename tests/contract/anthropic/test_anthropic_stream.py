"""Streams of Anthropic's Messages API."""

import json

import pytest
from google.protobuf import json_format

from parley.backends.anthropic.backend import Anthropic
from parley.core.errors import (
    StreamBroken,
)
from parley.v1.chat_completions_pb2 import ChatCompletionChunk
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
from tests.contract.backends import broken_off, call, collect, joined, reasons, stream_of, text
from tests.upstream import Events, Gate, ScriptedUpstream, Stall


def usages(chunks: list[ChatCompletionChunk]) -> list[tuple[int, int, int]]:
    """Returns the usage of every chunk that has one."""
    found = [chunk.usage for chunk in chunks if chunk.HasField("usage")]
    return [(usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) for usage in found]


async def test_prompt_usage_is_emitted_first(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """The usage of the prompt is emitted before the first token."""
    gate = Gate()
    first = start(cache_read_input_tokens=20, cache_creation_input_tokens=3)
    upstream.answer(Events([first, gate, block_start(), delta(text="x"), Stall()]))
    stream = stream_of(backend, call(timeouts={"stream_idle": 0.05}))
    started = await anext(stream)
    assert ([(32, 1, 33)], 0) == (usages([started]), len(started.choices))
    assert (20, 3) == (
        started.usage.prompt_tokens_details.cached_tokens,
        started.usage.prompt_tokens_details.cache_write_tokens,
    )
    gate.set()
    assert "x" == text([await anext(stream)])
    with pytest.raises(StreamBroken):
        await anext(stream)


async def test_usage_is_cumulative(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """The latest count replaces earlier ones; missing counts keep their value."""
    upstream.answer(
        Events(
            [
                start(cache_read_input_tokens=20),
                block_start(),
                delta(text="x"),
                block_stop(),
                *stopped(output_tokens=15),
            ]
        ),
        Events([start(), block_start(), delta(text="x"), *stopped(input_tokens=30, output_tokens=15)]),
    )
    assert (29, 15, 44) == usages(await collect(backend, call()))[-1]
    assert (30, 15, 45) == usages(await collect(backend, call()))[-1]


async def test_tier_of_a_stream(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """The service tier of a stream is emitted, under OpenAI's name."""
    started = message(usage={"input_tokens": 9, "service_tier": "priority"})
    upstream.answer(Events([event("message_start", message=started), block_start(), delta(text="x"), *ends()]))
    assert "priority" == (await collect(backend, call()))[0].service_tier


@pytest.mark.parametrize("together", [False, True])
async def test_tool_calls_in_a_stream(backend: Anthropic, upstream: ScriptedUpstream, together: bool) -> None:
    """Tool-use blocks become tool calls with indexes from 0; empty arguments become an empty object."""
    pieces = [
        start(),
        block_start(0),
        delta(text="Let me see."),
        block_stop(0),
        block_start(1, type="tool_use", id="c1", name="f", input={}),
        delta("input_json_delta", 1, partial_json=""),
        delta("input_json_delta", 1, partial_json='{"a"'),
        delta("input_json_delta", 1, partial_json=":1}"),
        block_stop(1),
        block_start(2, type="server_tool_use", id="srv", name="web_search", input={}),
        delta("input_json_delta", 2, partial_json='{"query":'),
        block_stop(2),
        block_start(3, type="tool_use", id="c2", name="g", input={}),
        delta("input_json_delta", 3, partial_json=""),
        block_stop(3),
        block_start(4, type="tool_use", id="c3", name="h", input={"early": True}),
        block_stop(4),
        *stopped("tool_use"),
    ]
    upstream.answer(Events(pieces, together=together))
    chunks = await collect(backend, call())
    calls: dict[int, list[str]] = {}
    for chunk in chunks:
        for item in (item for choice in chunk.choices for item in choice.delta.tool_calls):
            assert item.HasField("index")
            joined = calls.setdefault(item.index, ["", "", "", ""])
            for field, piece in enumerate((item.id, item.type, item.function.name, item.function.arguments)):
                joined[field] += piece
    assert {
        0: ["c1", "function", "f", '{"a":1}'],
        1: ["c2", "function", "g", "{}"],
        2: ["c3", "function", "h", '{"early":true}'],
    } == calls
    assert ("Let me see.", ["tool_calls"]) == (text(chunks), reasons(chunks))


async def test_blocks_that_share_an_index(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """Calls in blocks with the same index stay separate."""
    pieces = []
    for name in ("c1", "c2"):
        pieces += [block_start(type="tool_use", id=name, name="f", input={}), block_stop()]
    upstream.answer(Events([start(), *pieces, *stopped("tool_use")], together=True))
    calls = joined(await collect(backend, call())).tool_calls
    assert [("c1", "{}"), ("c2", "{}")] == [(item.id, item.function.arguments) for item in calls]


async def test_thinking_in_a_stream(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """Thinking becomes reasoning and citations annotations; thinking blocks are kept with signatures."""
    citation = {"type": "char_location", "cited_text": "x"}
    upstream.answer(
        Events(
            [
                start(),
                block_start(0, type="thinking", thinking="", signature=""),
                delta("thinking_delta", thinking="h"),
                delta("thinking_delta", thinking="m"),
                delta("signature_delta", signature="EqQB"),
                block_stop(0),
                block_start(1, type="redacted_thinking", data="AA"),
                block_stop(1),
                block_start(2),
                delta(index=2, text="x"),
                delta("citations_delta", 2, citation=citation),
                *ends(),
            ],
            together=True,
        )
    )
    answer_message = joined(await collect(backend, call()))
    assert ("hm", "x") == (answer_message.reasoning_content, answer_message.content.string_value)
    assert [citation] == [json_format.MessageToDict(found) for found in answer_message.annotations]
    thinking = [
        {"type": "thinking", "thinking": "hm", "signature": "EqQB"},
        {"type": "redacted_thinking", "data": "AA"},
    ]
    blocks = [*thinking, text_block("x") | {"citations": [citation]}]
    assert {"thinking_blocks": thinking, "content_blocks": blocks} == json.loads(answer_message.extra_json)


async def test_thinking_is_the_first_token(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """Thinking counts as the first token, so `stream_idle` applies from then on."""
    thinks = [start(), block_start(type="thinking", thinking="", signature=""), delta("thinking_delta", thinking="h")]
    upstream.answer(Events([*thinks, Stall()]))
    with pytest.raises(StreamBroken):
        await collect(backend, call(timeouts={"first_token": 5, "stream_idle": 0.05}))


async def test_unknown_events(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """Pings, comments, and unknown events, blocks and deltas are ignored."""
    odd = [
        ": comment\n\n",
        event("ping"),
        event("something_new", x=1),
        block_start(7, type="something_new"),
        delta("something_new", 7, x=1),
        block_stop(7),
        delta("input_json_delta", 9, partial_json="{"),
        block_stop(9),
        delta(text=""),
    ]
    upstream.answer(Events([*begins(), *odd, delta(text="x"), *odd, *ends()]))
    chunks = await collect(backend, call())
    assert ("x", ["stop"]) == (text(chunks), reasons(chunks))


async def test_events_without_names(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """The event name is optional; the type in the data decides."""
    pieces = [str(piece).partition("\n")[2] for piece in (*begins(), delta(text="x"), *ends())]
    upstream.answer(Events(pieces))
    assert "x" == text(await collect(backend, call()))


async def test_complete_without_message_stop(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """A stop reason or `message_stop` is sufficient for a complete answer."""
    reason, stop = stopped()
    upstream.answer(
        Events([*begins(), delta(text="x"), block_stop(), reason]),
        Events([*begins(), delta(text="x"), block_stop(), stop]),
    )
    assert ["stop"] == reasons(await collect(backend, call()))
    assert ["stop"] == reasons(await collect(backend, call()))


async def test_missing_last_blank_line(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """The last event is parsed even if the blank line after it is missing."""
    reason, _ = stopped()
    upstream.answer(Events([*begins(), delta(text="x"), str(reason).rstrip("\n")]))
    assert ["stop"] == reasons(await collect(backend, call()))


async def test_nothing_after_message_stop(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """Events after `message_stop` are ignored."""
    upstream.answer(Events([*begins(), delta(text="a"), *ends(), delta(text="b"), "data: [DONE]\n\n"], together=True))
    assert "a" == text(await collect(backend, call()))


@pytest.mark.parametrize(
    "data",
    ["{", '{"type": 3}x', '{"type": "content_block_delta"}',
     '{"type": "content_block_delta", "index": 0, "delta": 3}',
     '{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta"}}',
     '{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": 3}}',
     '{"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": [1]}}',
     '{"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": {"a": 1}}}',
     '{"type": "content_block_delta", "index": [], "delta": {"type": "input_json_delta", "partial_json": "{"}}',
     '{"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": "c", "name": 3}}',
     '{"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": 3}}',
     '{"type": "message_start", "message": 3}', '{"type": "message_delta"}',
     '{"type": "message_delta", "delta": {"stop_reason": ["x"]}}',
     '{"type":' * 2000],
)  # fmt: skip
@pytest.mark.parametrize("together", [False, True])
async def test_malformed_events(backend: Anthropic, upstream: ScriptedUpstream, data: str, together: bool) -> None:
    """A malformed event raises StreamBroken after the earlier text, and no other exception."""
    tool = block_start(1, type="tool_use", id="c", name="f", input={})
    upstream.answer(Events([*begins(), delta(text="a"), tool, f"data: {data}\n\n", *ends()], together=together))
    chunks, broken = await broken_off(backend, call())
    assert ("a", [], StreamBroken) == (text(chunks), reasons(chunks), type(broken))


@pytest.mark.parametrize("piece", ['"', "\\", "\n\t", "€ü\U0001f600", '","role":"x', "\u2028", '"}]}'])
async def test_text_that_needs_escapes(backend: Anthropic, upstream: ScriptedUpstream, piece: str) -> None:
    """Text with any characters is delivered unchanged."""
    pieces = ["plain", piece, "plain", piece, "more"] * 3
    upstream.answer(Events([*begins(), *(delta(text=item) for item in pieces), *ends()], together=True))
    assert "".join(pieces) == text(await collect(backend, call()))
