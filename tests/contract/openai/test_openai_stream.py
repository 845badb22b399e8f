"""Streams of the OpenAI backend: deltas, usage, and the end of a stream."""

import asyncio
from typing import Any

import pytest
from google.protobuf import json_format

from parley.backends.openai.backend import OpenAI
from parley.core.errors import (
    StreamBroken,
)
from tests.contract.backends import broken_off, call, collect, joined, reasons, stream_of, text
from tests.contract.openai.answers import MODERATION
from tests.upstream import (
    DONE,
    USAGE,
    Cut,
    Events,
    Gate,
    ScriptedUpstream,
    Stall,
    chunk,
    chunks,
    completion,
    ending,
)


def tool_call_chunk(index: int | None, arguments: str, **first: Any) -> dict[str, Any]:
    """Creates a chunk with a fragment of a tool call."""
    name = {"name": first.pop("name")} if first else {}
    position = {} if index is None else {"index": index}
    return chunk({"tool_calls": [{**position, **first, "function": {**name, "arguments": arguments}}]})


@pytest.mark.parametrize("together", [False, True])
async def test_tool_calls_in_a_stream(backend: OpenAI, upstream: ScriptedUpstream, together: bool) -> None:
    """Fragments of tool calls are merged by index, from one chunk or many."""
    pieces = [
        tool_call_chunk(0, "", id="c1", type="function", name="f"),
        tool_call_chunk(0, '{"a"'),
        tool_call_chunk(0, ":1}"),
        tool_call_chunk(1, "", id="c2", type="function", name="g"),
        tool_call_chunk(1, "{}"),
    ]
    upstream.answer(Events([*chunks(), *pieces, *ending("tool_calls")], together=together))
    calls: dict[int, list[str]] = {}
    for part in await collect(backend, call()):
        for item in (item for choice in part.choices for item in choice.delta.tool_calls):
            assert item.HasField("index")
            joined = calls.setdefault(item.index, ["", "", "", ""])
            for field, piece in enumerate((item.id, item.type, item.function.name, item.function.arguments)):
                joined[field] += piece
    assert {0: ["c1", "function", "f", '{"a":1}'], 1: ["c2", "function", "g", "{}"]} == calls


async def test_tool_calls_without_an_index(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """Without an index, a new id starts a new call."""
    pieces = [
        tool_call_chunk(None, "{", id="c1", name="f"),
        tool_call_chunk(None, "}"),
        tool_call_chunk(None, "{}", id="c2", name="g"),
    ]
    upstream.answer(Events([*pieces, *ending("tool_calls")], together=True))
    calls = joined(await collect(backend, call())).tool_calls
    assert [("c1", "{}"), ("c2", "{}")] == [(item.id, item.function.arguments) for item in calls]


async def test_other_deltas(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """Refusals, reasoning, function calls, audio, annotations and custom calls are merged like text."""
    custom = {"index": 0, "id": "c", "type": "custom", "custom": {"name": "g", "input": "a"}}
    deltas: list[dict[str, Any]] = [
        {"reasoning_content": "h", "content": None},
        {"reasoning": "m", "reasoning_details": []},
        {"refusal": "n"},
        {"refusal": "o"},
        {"function_call": {"name": "f", "arguments": "{"}},
        {"function_call": {"arguments": "}"}},
        {"audio": {"id": "a", "transcript": "hel", "data": "AA"}},
        {"audio": {"transcript": "lo", "expires_at": 5}},
        {"annotations": [{"type": "url_citation"}]},
        {"tool_calls": [custom]},
        {"tool_calls": [{"index": 0, "custom": {"input": "b"}}]},
        {"content": "x", "annotations": [{"type": "url_citation"}]},
    ]
    upstream.answer(Events([*(chunk(delta) for delta in deltas), *ending()], together=True))
    delta = joined(await collect(backend, call()))
    assert ("hm", "no", "x") == (delta.reasoning_content, delta.refusal, delta.content.string_value)
    assert ("f", "{}") == (delta.function_call.name, delta.function_call.arguments)
    assert ("a", "hello", "AA", 5) == (
        delta.audio.id,
        delta.audio.transcript,
        delta.audio.data,
        delta.audio.expires_at,
    )
    assert ("c", "custom", "g", "ab") == (
        delta.tool_calls[0].id,
        delta.tool_calls[0].type,
        delta.tool_calls[0].custom.name,
        delta.tool_calls[0].custom.input,
    )
    assert 2 == len(delta.annotations)


async def test_logprobs_in_a_stream(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """The logprobs of merged deltas are merged."""
    pieces = []
    for piece in ("a", "b", "c"):
        event = chunk({"content": piece})
        event["choices"][0]["logprobs"] = {"content": [{"token": piece, "logprob": -1, "bytes": [ord(piece)]}]}
        pieces.append(event)
    upstream.answer(Events([*pieces, *ending()], together=True))
    choice = (await collect(backend, call(logprobs=True)))[0].choices[0]
    assert "abc" == choice.delta.content
    assert ["a", "b", "c"] == [token.token for token in choice.logprobs.content]


async def test_several_choices_in_a_stream(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """Each choice has its own text and finish reason."""
    pieces = [chunk({"content": f"{index}{piece}"}, index=index) for piece in "ab" for index in (1, 0)]
    upstream.answer(Events([*pieces, chunk(finish="stop", index=1), chunk(finish="length"), DONE], together=True))
    found = await collect(backend, call(n=2))
    assert ("0a0b", "1a1b") == (text(found, 0), text(found, 1))
    assert {"stop", "length"} == set(reasons(found))


async def test_usage_of_each_choice(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """llama.cpp's usage per choice is summed, with the prompt counted once."""
    delivered = [chunk({"content": "a"}, "stop", index) for index in (0, 1)]
    ends = [event for one in delivered for event in (one, chunk(choices=[], usage=USAGE))]
    upstream.answer(Events([*ends, DONE]))
    usage = (await collect(backend, call(n=2)))[-1].usage
    assert (9, 6, 15) == (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens)


async def test_moderation_of_a_stream(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """The moderation result is emitted once, in a separate chunk."""
    pieces = [*chunks("a"), chunk(choices=[], moderation=MODERATION), *ending()]
    upstream.answer(Events(pieces))
    reported = [found.moderation for found in await collect(backend, call()) if found.HasField("moderation")]
    assert [MODERATION] == [json_format.MessageToDict(found) for found in reported]


async def test_running_usage(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """Cumulative usage is replaced by the latest count."""
    counts = [USAGE | {"completion_tokens": number} for number in (1, 2, 3)]
    pieces = [chunk({"content": "x"}, usage=usage) for usage in counts]
    upstream.answer(Events([*pieces, *ending()]))
    assert 3 == (await collect(backend, call()))[-1].usage.completion_tokens


async def test_complete_without_done(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """Without `[DONE]`, an answer is complete if every choice has a finish reason."""
    upstream.answer(Events([*chunks("a"), chunk(finish="stop")]), Events([*chunks("a"), chunk(finish="stop")]))
    assert ["stop"] == reasons(await collect(backend, call()))
    with pytest.raises(StreamBroken):
        await collect(backend, call(n=2))


async def test_deeply_nested_optional_data(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """Optional data that nests too deeply for a message is dropped."""
    deep: dict[str, Any] = {}
    for _ in range(50):
        deep = {"a": deep}
    upstream.answer(
        completion("Hi") | {"moderation": deep}, Events([chunk({"annotations": [deep]}), *chunks("a"), DONE])
    )
    assert not (await backend.complete(call())).HasField("moderation")
    assert "a" == text(await collect(backend, call()))


@pytest.mark.parametrize(
    "after",
    [
        [],
        [Cut()],
        [Cut(reset=True)],
        [Stall()],
        [chunk(choices=[], usage=USAGE), Cut()],
        ["data: {oops\n\n"],
        [{"error": {"message": "cannot count", "type": "server_error"}}],
        [chunk(choices=[]), DONE],
    ],
)
async def test_failures_after_the_finish_reason(backend: OpenAI, upstream: ScriptedUpstream, after: list[Any]) -> None:
    """Once every choice has a finish reason, later failures of the stream are ignored."""
    gate = Gate()
    upstream.answer(Events([*chunks("a", "b"), chunk(finish="length"), gate, *after]))
    delivered = []
    async for part in stream_of(backend, call(timeouts={"stream_idle": 0.5})):
        delivered.append(part)
        if text(delivered) == "ab":
            await asyncio.sleep(0.05)  # the finish reason arrives with the next bytes
            gate.set()
    assert ("ab", ["length"]) == (text(delivered), reasons(delivered))


@pytest.mark.parametrize("end", [[Cut()], [Cut(reset=True)], [Stall()], ["data: {oops\n\n"], [], [chunk({}, "stop")]])
async def test_truncated_without_a_finish_reason(backend: OpenAI, upstream: ScriptedUpstream, end: list[Any]) -> None:
    """A stream with an unfinished choice raises StreamBroken; its usage is delivered."""
    gate = Gate()
    first = [chunk({"content": "a"}), chunk({"content": "b"}, index=1, usage=USAGE)]
    upstream.answer(Events([*first, gate, *end]))
    delivered, failed = await broken_off(backend, call(n=2, timeouts={"stream_idle": 0.05}), gate)
    assert isinstance(failed, StreamBroken)
    assert ("a", "b") == (text(delivered), text(delivered, 1))
    assert USAGE["total_tokens"] == max(part.usage.total_tokens for part in delivered)


async def test_usage_before_a_failure(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """Usage that arrives together with an error is delivered before the error."""
    pieces = [*chunks("a"), chunk({"content": "b"}, usage=USAGE), {"error": {"message": "x"}}]
    upstream.answer(Events(pieces, together=True))
    chunks_of = stream_of(backend, call())
    assert 12 == (await anext(chunks_of)).usage.total_tokens
    with pytest.raises(StreamBroken):
        await anext(chunks_of)


async def test_done_without_a_reason(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """`[DONE]` finishes choices without a finish reason, but an answer without choices is not complete."""
    upstream.answer(Events([*chunks("a"), DONE]), Events([DONE]))
    assert ["stop"] == reasons(await collect(backend, call()))
    with pytest.raises(StreamBroken):
        await collect(backend, call())


async def test_nothing_after_done(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """Events after `[DONE]` are ignored."""
    upstream.answer(Events([*chunks("a"), *ending(), *chunks("b")], together=True))
    assert "a" == text(await collect(backend, call()))


@pytest.mark.parametrize(
    "event",
    ['{"choices": 3}', '{"choices": [3]}', '{"choices": [{"delta": 3}]}', '{"choices": [{"delta": {"content": 3}}]}',
     '{"choices": [{"delta": {"tool_calls": 3}}]}', '{"choices": [{"delta": {"content": "a', "{", '{"a":' * 2000],
)  # fmt: skip
async def test_malformed_events(backend: OpenAI, upstream: ScriptedUpstream, event: str) -> None:
    """A malformed event raises StreamBroken and no other exception."""
    upstream.answer(Events([*chunks("a"), f"data: {event}\n\n", *ending()]))
    with pytest.raises(StreamBroken):
        await collect(backend, call())


async def test_ignored_events(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """Comments, unknown events, null fields, empty choices and empty deltas are ignored."""
    odd = [
        ": OPENROUTER PROCESSING\n\n",
        {"choices": [], "prompt_filter_results": []},
        {"choices": None},
        {"choices": [{"delta": None, "finish_reason": ""}]},
        chunk({"content": None, "tool_calls": None, "role": "assistant"}),
        "event: ping\ndata: {}\n\n",
    ]
    upstream.answer(Events([*odd, *chunks("a", "€"), *ending()]))  # type: ignore[list-item]
    found = await collect(backend, call())
    assert ("a€", ["stop"]) == (text(found), reasons(found))


@pytest.mark.parametrize("piece", ['"', "\\", "\n\t", "€ü\U0001f600", '","role":"x', "\u2028", "", '"}]}'])
async def test_text_that_needs_escapes(backend: OpenAI, upstream: ScriptedUpstream, piece: str) -> None:
    """Text with any characters is delivered unchanged."""
    pieces = ["plain", piece, "plain", piece, "more"] * 3
    upstream.answer(Events([*chunks(*pieces), *ending()], together=True))
    assert "".join(pieces) == text(await collect(backend, call()))
