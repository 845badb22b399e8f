"""Responses of Anthropic's Messages API: complete answers, streams and errors."""

import json
from typing import Any

import pytest
from google.protobuf import json_format

from parley.backends.anthropic.backend import Anthropic
from parley.core.errors import (
    ContentPolicy,
    ContextLengthExceeded,
    ParleyError,
    StreamBroken,
    UpstreamMisconfigured,
    UpstreamQuotaExhausted,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamUnavailable,
    UpstreamUnreadable,
)
from parley.v1.chat_completions_pb2 import ChatCompletionChunk
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
from tests.contract.backends import (
    broken_off,
    call,
    collect,
    failure,
    joined,
    reasons,
    text,
)
from tests.upstream import Events, Gate, Json, Raw, ScriptedUpstream, Stall


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


async def test_error_with_status_200(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """An error with status 200 is classified by its type."""
    upstream.answer(error("rate_limit_error", "slow down"))
    assert UpstreamRateLimited is type(await failure(backend, call()))


MISSHAPEN = [
    {"content": [{"type": "text"}]},
    {"content": [{"type": "text", "text": 3}]},
    {"content": [{"type": "tool_use", "id": "c", "name": 3, "input": {}}]},
    {"content": [{"type": "tool_use", "id": "c"}]},
    {"content": [{"type": "thinking", "thinking": 3}]},
    {"content": [{"type": "text", "text": "x"}], "stop_reason": ["x"]},
]


@pytest.mark.parametrize("body", MISSHAPEN)
async def test_malformed_answers(backend: Anthropic, upstream: ScriptedUpstream, body: dict[str, Any]) -> None:
    """A malformed response maps to UpstreamUnreadable and raises no other exception."""
    upstream.answer(body)
    assert UpstreamUnreadable is type(await failure(backend, call()))


# Errors


@pytest.mark.parametrize(
    ("status", "kind", "message", "expected"),
    [
        (400, "invalid_request_error", "max_tokens: 99999 > 8192", UpstreamRejected),
        (400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum", ContextLengthExceeded),
        (
            400,
            "invalid_request_error",
            "input length and `max_tokens` exceed context limit: 184915 + 20000 > 204648, decrease input length",
            ContextLengthExceeded,
        ),
        (400, "invalid_request_error", "Output blocked by content filtering policy", ContentPolicy),
        (
            400,
            "invalid_request_error",
            "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade.",
            UpstreamQuotaExhausted,
        ),
        (
            400,
            "invalid_request_error",
            "You have reached your specified API usage limits. You will regain access on 2026-12-01.",
            UpstreamQuotaExhausted,
        ),
        (401, "authentication_error", "invalid x-api-key", UpstreamMisconfigured),
        (402, "billing_error", "no", UpstreamQuotaExhausted),
        (403, "permission_error", "no", UpstreamMisconfigured),
        (404, "not_found_error", "model: claude-0", UpstreamMisconfigured),
        (413, "request_too_large", "Request exceeds the maximum size", UpstreamRejected),
        (429, "rate_limit_error", "no", UpstreamRateLimited),
        (500, "api_error", "Internal server error", UpstreamUnavailable),
        (504, "timeout_error", "no", UpstreamUnavailable),
        (529, "overloaded_error", "Overloaded", UpstreamUnavailable),
    ],
)
@pytest.mark.parametrize("in_stream", [False, True])
async def test_errors(
    backend: Anthropic,
    upstream: ScriptedUpstream,
    status: int,
    kind: str,
    message: str,
    expected: type[ParleyError],
    in_stream: bool,
) -> None:
    """Each error of the API maps to its error, as a response and as the first event of a stream."""
    body = error(kind, message)
    upstream.answer(Events([start(), event("error", error=body["error"])]) if in_stream else Json(body, status))
    assert expected is type(await failure(backend, call(), stream=in_stream))


# Streams


def usages(chunks: list[ChatCompletionChunk]) -> list[tuple[int, int, int]]:
    """Returns the usage of every chunk that has one."""
    found = [chunk.usage for chunk in chunks if chunk.HasField("usage")]
    return [(usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) for usage in found]


async def test_prompt_usage_is_emitted_first(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """The usage of the prompt is emitted before the first token."""
    gate = Gate()
    first = start(cache_read_input_tokens=20, cache_creation_input_tokens=3)
    upstream.answer(Events([first, gate, block_start(), delta(text="x"), Stall()]))
    stream = backend.stream(call(timeouts={"stream_idle": 0.05}))
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


async def test_error_page(backend: Anthropic, upstream: ScriptedUpstream) -> None:
    """An HTML error page of a proxy is not shown to the caller."""
    page = "<html>nginx at 10.0.0.7</html>"
    upstream.answer(Raw([f"HTTP/1.1 400 Bad\r\nContent-Length: {len(page)}\r\n\r\n{page}"]))
    assert 'The model "myapp-123" refused the request' == (await failure(backend, call())).message
