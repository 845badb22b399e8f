"""Completeness, usage and optional data of OpenAI responses, streaming and not."""

import json
from typing import Any

import pytest

from parley.backends.openai.backend import OpenAI
from parley.core.errors import (
    ContentPolicy,
    ContextLengthExceeded,
    ParleyError,
    StreamBroken,
    UpstreamRateLimited,
    UpstreamUnreadable,
)
from parley.v1.chat_completions_pb2 import ChatCompletion
from tests.contract.backends import (
    broken_off,
    call,
    collect,
    completion_of,
    failure,
    reasons,
    text,
)
from tests.upstream import DONE, USAGE, Events, Json, Raw, ScriptedUpstream, Step, chunk, chunks, completion, ending

GOOD = {
    "stop": ("stop", "STOP", "eos", "eos_token", "end_turn", "stop_sequence", "COMPLETE"),
    "length": ("length", "max_tokens", "MAX_TOKENS", "model_length", "max_output_tokens"),
    "content_filter": ("content_filter", "SAFETY", "refusal", "content_filter: PROHIBITED_CONTENT", "sensitive"),
}
BAD = (
    "error",
    "abort",
    "insufficient_system_resource",
    "network_error",
    "MALFORMED_FUNCTION_CALL",
    "function_call_filter: MALFORMED_FUNCTION_CALL",
    "a_word_of_tomorrow",
    7,
)


def complete_answer(reason: Any, content: str | None = "Hi", **choice: Any) -> dict[str, Any]:
    """Returns a response with this finish reason."""
    body = completion(content)
    body["choices"][0] |= {"finish_reason": reason, **choice}
    return body


async def both(backend: OpenAI, **fields: Any) -> list[ChatCompletion]:
    """Returns the complete answer, and the accumulated stream."""
    return [await backend.complete(call(**fields)), completion_of(await collect(backend, call(**fields)))]


@pytest.mark.parametrize(("word", "expected"), [(word, reason) for reason, words in GOOD.items() for word in words])
async def test_known_finish_reasons(backend: OpenAI, upstream: ScriptedUpstream, word: str, expected: str) -> None:
    """A vendor's finish reason is converted to OpenAI's."""
    upstream.answer(complete_answer(word), Events([*chunks("Hi"), chunk(finish=word), DONE]))
    assert [expected] * 2 == [answer.choices[0].finish_reason for answer in await both(backend)]


@pytest.mark.parametrize("word", BAD)
async def test_unknown_finish_reasons(backend: OpenAI, upstream: ScriptedUpstream, word: Any) -> None:
    """Any other finish reason is a failure; earlier text is delivered without a finish reason."""
    upstream.answer(complete_answer(word), Events([*chunks("H", "i"), chunk({"content": ""}, word), DONE]))
    assert UpstreamUnreadable is type(await failure(backend, call()))
    delivered, error = await broken_off(backend, call())
    assert ("Hi", [], StreamBroken) == (text(delivered), reasons(delivered), type(error))


async def test_one_failed_choice(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """One failed choice makes the complete answer a failure."""
    body = complete_answer("stop")
    body["choices"].append(body["choices"][0] | {"index": 1, "finish_reason": "error"})
    ends = [chunk(finish="stop"), chunk(finish="error", index=1)]
    upstream.answer(body, Events([chunk({"content": "a"}), chunk({"content": "b"}, index=1), *ends, DONE]))
    assert UpstreamUnreadable is type(await failure(backend, call(n=2)))
    assert StreamBroken is type(await failure(backend, call(n=2), stream=True))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": 429, "message": "slow down"}, UpstreamRateLimited),
        ({"code": "context_length_exceeded", "message": "too long"}, ContextLengthExceeded),
        ({"code": 403, "message": "flagged", "type": "content_filter"}, ContentPolicy),
    ],
)
@pytest.mark.parametrize("where", ["choice", "body"])
async def test_errors_with_status_200_keep_their_class(
    backend: OpenAI, upstream: ScriptedUpstream, where: str, error: dict[str, Any], kind: type[ParleyError]
) -> None:
    """An error with status 200 keeps its class: in a choice or as the body, as JSON or as an event.

    After the first token it becomes StreamBroken, except for rejected content.
    """
    if where == "choice":
        body, event = complete_answer("error", "", error=error), chunk({"content": ""}, "error")
        event["choices"][0]["error"] = error
    else:
        body = event = {"error": error}
    upstream.answer(body, Events([event, DONE]), Json(body), Events([*chunks("a"), event, DONE]))
    assert kind is type(await failure(backend, call()))
    assert kind is type(await failure(backend, call(), stream=True))
    assert kind is type(await failure(backend, call(), stream=True))
    delivered, broken = await broken_off(backend, call())
    assert ("a", kind if kind is ContentPolicy else StreamBroken) == (text(delivered), type(broken))


@pytest.mark.parametrize(
    "body",
    [
        {"object": "error", "message": "slow down", "code": 429},
        [{"error": {"code": 429, "message": "slow down"}}],
        {"base_resp": {"status_code": 429, "status_msg": "slow down"}, "choices": None},
    ],
)
async def test_errors_of_other_shapes(backend: OpenAI, upstream: ScriptedUpstream, body: Any) -> None:
    """The error formats of FastChat, Gemini and MiniMax are recognized."""
    upstream.answer(Json(body), Json(body), Events([f"data: {json.dumps(body)}\n\n"]))
    for stream in (False, True, True):
        assert UpstreamRateLimited is type(await failure(backend, call(), stream=stream))


async def test_a_named_error_that_is_no_json(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """An event named `error` is an error even if its data is not JSON."""
    upstream.answer(Events([*chunks("a"), "event: error\ndata: out of memory\n\n", *ending()]))
    delivered, error = await broken_off(backend, call())
    assert ("a", StreamBroken) == (text(delivered), type(error))
    assert error is not None
    assert "out of memory" in (error.cause or "")


NOTHING: dict[str, list[Step]] = {
    "role, then [DONE]": [chunk({"role": "assistant", "content": ""}), DONE],
    "stop without output": [chunk({"role": "assistant"}), chunk(finish="stop"), DONE],
    "tool_calls without a call": [chunk(finish="tool_calls"), DONE],
    "empty pieces of everything": [chunk({"content": [], "tool_calls": [], "reasoning": "", "audio": {}}), DONE],
    "usage only": [chunk(choices=[], usage=USAGE), DONE],
    "[DONE] only": [DONE],
    "nothing at all": [],
}


@pytest.mark.parametrize("steps", NOTHING.values(), ids=NOTHING)
async def test_empty_stream(backend: OpenAI, upstream: ScriptedUpstream, steps: list[Step]) -> None:
    """A stream without output raises StreamBroken."""
    upstream.answer(Events(steps), Events(steps, together=True))
    for _ in range(2):
        assert StreamBroken is type(await failure(backend, call(), stream=True))


@pytest.mark.parametrize("message", [{}, {"content": ""}, {"content": None, "tool_calls": [], "annotations": []}])
@pytest.mark.parametrize("reason", ["stop", "tool_calls", None])
async def test_empty_answer(
    backend: OpenAI, upstream: ScriptedUpstream, reason: str | None, message: dict[str, Any]
) -> None:
    """A complete answer without output is unreadable, so another target is tried."""
    upstream.answer(complete_answer(reason, message=message))
    assert UpstreamUnreadable is type(await failure(backend, call()))


async def test_one_empty_choice(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """An empty choice does not invalidate the other one."""
    body = complete_answer("stop")
    body["choices"].append(complete_answer("stop", "")["choices"][0] | {"index": 1})
    steps: list[Step] = [chunk({"content": "Hi"}, "stop"), chunk(finish="stop", index=1), DONE]
    upstream.answer(body, Events(steps))
    for answer in await both(backend, n=2):
        assert ["Hi", ""] == [choice.message.content.string_value for choice in answer.choices]


async def test_a_call_without_a_name(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """A tool call without a name is a failure."""
    nameless = {"index": 0, "id": "a", "type": "function", "function": {"arguments": "{}"}}
    upstream.answer(completion(None, tool_calls=[nameless]), Events([chunk({"tool_calls": [nameless]}), DONE]))
    assert UpstreamUnreadable is type(await failure(backend, call()))
    assert StreamBroken is type(await failure(backend, call(), stream=True))


async def test_finish_reason_in_every_chunk(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """A finish reason followed by output is ignored; without [DONE] the answer is incomplete."""
    upstream.answer(Events([chunk({"content": piece}, "stop") for piece in "Hi"]))
    delivered, error = await broken_off(backend, call())
    assert ("Hi", [], StreamBroken) == (text(delivered), reasons(delivered), type(error))


async def test_specific_finish_reason_is_kept(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """A `stop` after `length` does not replace it."""
    upstream.answer(Events([*chunks("Hi"), chunk(finish="length"), chunk(finish="stop"), DONE]))
    assert ["length"] == reasons(await collect(backend, call()))


# Usage

COUNTS: list[tuple[Any, tuple[int | None, int | None]]] = [
    ({"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 400}, (100, 300)),
    (
        {
            "prompt_tokens": 100,
            "completion_tokens": 50,
            "total_tokens": 400,
            "completion_tokens_details": {"reasoning_tokens": 250},
        },
        (100, 300),
    ),
    ({"prompt_tokens": 9, "completion_tokens": 60.0, "total_tokens": 69.0}, (9, 60)),
    ({"prompt_tokens": "9", "completion_tokens": "60"}, (9, 60)),
    ({"prompt_tokens": 9, "completion_tokens": -35, "total_tokens": 12}, (9, 3)),
    ({"prompt_tokens": 9, "completion_tokens": -35, "total_tokens": -26}, (9, None)),
    ({"prompt_tokens": 9, "completion_tokens": 10**30}, (9, None)),
    ({"prompt_tokens": 9, "completion_tokens": True}, (9, None)),
    ({"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 1}, (9, 3)),
    ({"completion_tokens": 3, "total_tokens": 12}, (9, 3)),
    ({"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": 7}, (9, 3)),
    ({"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": "many"}}, (9, 3)),
    ({"prompt_tokens": 9, "completion_tokens": 3, "cost": "a lot", "cost_details": [1]}, (9, 3)),
    ({"input_tokens": 9, "output_tokens": 3}, (9, 3)),
    ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, (None, None)),
    ({}, (None, None)),
    (None, (None, None)),
    (7, (None, None)),
    ("many", (None, None)),
]


def counted(answer: ChatCompletion) -> tuple[int | None, int | None]:
    """Returns prompt and completion tokens; None if unknown."""
    usage = answer.usage
    return (
        usage.prompt_tokens if usage.HasField("prompt_tokens") else None,
        usage.completion_tokens if usage.HasField("completion_tokens") else None,
    )


@pytest.mark.parametrize(("usage", "expected"), COUNTS)
async def test_malformed_usage(
    backend: OpenAI, upstream: ScriptedUpstream, usage: Any, expected: tuple[int | None, int | None]
) -> None:
    """A malformed count is repaired or dropped; the answer is delivered."""
    steps = [*chunks("Hi"), chunk(finish="stop"), chunk(choices=[], usage=usage), DONE]
    upstream.answer(complete_answer("stop") | {"usage": usage}, Events(steps))
    for answer in await both(backend):
        assert ("Hi", expected) == (answer.choices[0].message.content.string_value, counted(answer))
        if None not in expected:
            assert sum(filter(None, expected)) == answer.usage.total_tokens


def _in_choice() -> dict[str, Any]:
    event = chunk(finish="stop")
    event["choices"][0]["usage"] = USAGE
    return event


@pytest.mark.parametrize(
    "event",
    [
        chunk(finish="stop", usage=USAGE),
        chunk({"content": ""}, "stop", x_groq={"id": "req_1", "usage": USAGE}),
        _in_choice(),
    ],
    ids=["last chunk", "x_groq", "choice"],
)
async def test_usage_in_nonstandard_fields(backend: OpenAI, upstream: ScriptedUpstream, event: dict[str, Any]) -> None:
    """Usage in `x_groq` (Groq) or in the last choice (Moonshot) is found."""
    body = complete_answer("stop")
    body.pop("usage")
    if "usage" in event["choices"][0]:
        body["choices"][0]["usage"] = USAGE
    upstream.answer(body | {name: event[name] for name in ("usage", "x_groq") if name in event})
    upstream.answer(Events([*chunks("Hi"), event, DONE]))
    assert [(9, 3)] * 2 == [counted(answer) for answer in await both(backend)]


async def test_usage_of_several_choices(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """vLLM's usage is cumulative in each chunk, so it is not summed."""
    delivered = [chunk({"content": "a"}, "stop", index, usage=USAGE) for index in (0, 1)]
    upstream.answer(Events([*delivered, chunk(choices=[], usage=USAGE), DONE]))
    assert (9, 3) == counted(completion_of(await collect(backend, call(n=2))))


async def test_usage_of_several_choices_of_llama_cpp(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """llama.cpp counts one of several choices, so completion tokens are unknown."""
    body = complete_answer("stop") | {"timings": {"predicted_n": 7}}
    body["choices"] *= 2
    upstream.answer(body)
    assert (9, None) == counted(await backend.complete(call(n=2)))


# Optional data

DECORATIONS: list[dict[str, Any]] = [
    {"system_fingerprint": 7},
    {"system_fingerprint": ["x"], "service_tier": {"a": 1}},
    {"moderation": "none"},
    {"id": 7, "created": "yesterday", "model": None, "object": []},
]
OF_MESSAGE: list[dict[str, Any]] = [
    {"annotations": {"type": "url_citation"}},
    {"annotations": ["x", 7, None]},
    {"audio": "none"},
    {"reasoning": 7},
    {"role": 7},
]
ODD_TOKENS: list[Any] = [
    {"content": [{"token": 7, "logprob": "x", "bytes": ["a"], "top_logprobs": "x"}]},
    {"content": [{"token": "H", "logprob": None, "bytes": [300]}, 7]},
    {"content": "H"},
    [1],
    "x",
]


@pytest.mark.parametrize("odd", DECORATIONS)
async def test_malformed_optional_data(backend: OpenAI, upstream: ScriptedUpstream, odd: dict[str, Any]) -> None:
    """Malformed optional data of a response is dropped."""
    upstream.answer(complete_answer("stop") | odd, Events([chunk({"content": "Hi"}, "stop") | odd, DONE]))
    assert ["Hi"] * 2 == [answer.choices[0].message.content.string_value for answer in await both(backend)]


@pytest.mark.parametrize("odd", OF_MESSAGE)
async def test_malformed_optional_data_of_a_message(
    backend: OpenAI, upstream: ScriptedUpstream, odd: dict[str, Any]
) -> None:
    """Malformed optional data of a message is dropped."""
    upstream.answer(completion("Hi", **odd), Events([chunk({"content": "Hi", **odd}, "stop"), DONE]))
    assert ["Hi"] * 2 == [answer.choices[0].message.content.string_value for answer in await both(backend)]


@pytest.mark.parametrize("odd", ODD_TOKENS)
async def test_malformed_logprobs(backend: OpenAI, upstream: ScriptedUpstream, odd: Any) -> None:
    """Malformed parts of logprobs are dropped."""
    event = chunk({"content": "Hi"}, "stop")
    event["choices"][0]["logprobs"] = odd
    upstream.answer(complete_answer("stop", logprobs=odd), Events([event, DONE]))
    for answer in await both(backend, logprobs=True, top_logprobs=2):
        assert "Hi" == answer.choices[0].message.content.string_value
        assert all(token.logprob == -9999.0 for token in answer.choices[0].logprobs.content)


BIG = 123456789012345678901234567890
UNKNOWN = f'{{"zebra":{BIG},"apple":{{"b":1.50,"a":[null,true,"\\u00fc"]}}}}'
EXACT = f'{{"zebra":{BIG},"apple":{{"b":1.50,"a":[null,true,"ü"]}}}}'


async def test_unknown_fields_at_every_level(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """Unknown fields of each object are kept exactly and in order, streaming or not."""
    unknown = UNKNOWN[1:-1]
    call_ = f'{{"id":"a","type":"function","function":{{"name":"f","arguments":"{{}}",{unknown}}},{unknown}}}'
    usage = (
        f'{{"prompt_tokens":9,"completion_tokens":3,"prompt_tokens_details":{{"cached_tokens":1,{unknown}}},{unknown}}}'
    )
    delivered = f'{{"content":"Hi","tool_calls":[{call_}],{unknown}}}'
    form = '{"choices":[{"index":0,"NAME":MESSAGE,"finish_reason":"tool_calls",UNKNOWN_}],"usage":USAGE,UNKNOWN_}'
    form = form.replace("MESSAGE", delivered).replace("UNKNOWN_", unknown).replace("USAGE", usage)
    body = form.replace("NAME", "message").encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    upstream.answer(Raw([head + body]), Events([f"data: {form.replace('NAME', 'delta')}\n\n", DONE]))
    for answer in await both(backend):
        [choice] = answer.choices
        [made] = choice.message.tool_calls
        objects: list[Any] = [
            answer,
            choice,
            choice.message,
            made,
            made.function,
            answer.usage,
            answer.usage.prompt_tokens_details,
        ]
        assert [EXACT] * 7 == [found.extra_json for found in objects]


async def test_unknown_fields_of_a_stream_are_merged(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """Unknown arrays are appended, objects merged, and other values, including strings, replaced."""
    parts: list[dict[str, Any]] = [
        {"content": "H", "details": [{"a": 1}], "state": {"x": 1}, "mark": "one", "nothing": None},
        {"content": "", "details": [{"b": 2}], "state": {"y": 2}, "mark": "two", "nothing": None},
        {"content": "i"},
    ]
    upstream.answer(Events([*(chunk(part) for part in parts), *ending()], together=True))
    answer = completion_of(await collect(backend, call()))
    assert "Hi" == answer.choices[0].message.content.string_value
    assert {"details": [{"a": 1}, {"b": 2}], "state": {"x": 1, "y": 2}, "mark": "two", "nothing": None} == json.loads(
        answer.choices[0].message.extra_json
    )


async def test_repeated_fields_are_emitted_once(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """Repeated fields of the complete response, such as OpenRouter's `provider`, are emitted once."""
    more: dict[str, Any] = {"provider": "Up", "citations": ["u", "v"]}
    upstream.answer(
        Events([*(chunk({"content": piece}, **more) for piece in "abc"), chunk(finish="stop", **more), DONE])
    )
    chunks_ = await collect(backend, call())
    assert [more] == [json.loads(one.extra_json) for one in chunks_ if one.extra_json]
    assert more == json.loads(completion_of(chunks_).extra_json)


async def test_repeated_nulls(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """Null fields that vLLM repeats in each delta are dropped."""
    nulls = {"token_ids": None, "stop_reason": None}
    events = [chunk({"content": piece, **nulls}) for piece in "abcdef"]
    for event in events:
        event["choices"][0] |= nulls
    upstream.answer(Events([*events, *ending()], together=True))
    delivered = [choice for one in await collect(backend, call()) for choice in one.choices]
    assert ["a", "bcdef", ""] == [choice.delta.content for choice in delivered]


# Bodies of the other format

TYPES = ["application/json", "text/event-stream", "text/plain", "application/octet-stream"]


@pytest.mark.parametrize("content_type", TYPES)
@pytest.mark.parametrize("before", ["", "\n\n \n"])
async def test_json_for_a_stream(backend: OpenAI, upstream: ScriptedUpstream, content_type: str, before: str) -> None:
    """A JSON response to a streaming request is streamed, whatever its content type."""
    tool = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    body = before + json.dumps(completion("Hi", tool_calls=[tool], reasoning_content="hm"))
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    upstream.answer(Raw([head + body[:9], body[9:]]))
    answer = completion_of(await collect(backend, call()))
    [choice] = answer.choices
    assert ("Hi", "hm", "tool_calls") == (
        choice.message.content.string_value,
        choice.message.reasoning_content,
        choice.finish_reason,
    )
    assert ["f"] == [made.function.name for made in choice.message.tool_calls]
    assert ((9, 3), "fp_scripted") == (counted(answer), answer.system_fingerprint)


@pytest.mark.parametrize("content_type", TYPES)
async def test_events_for_a_complete_answer(backend: OpenAI, upstream: ScriptedUpstream, content_type: str) -> None:
    """Events for a non-streaming request are accumulated; an incomplete stream is a failure."""
    headers = {"Content-Type": content_type}
    upstream.answer(Events([": hi\n\n", *chunks("H", "i"), *ending()], headers=headers))
    upstream.answer(Events([*chunks("H", "i")], headers=headers), Events([{"error": {"code": 429}}], headers=headers))
    answer = await backend.complete(call())
    assert ("Hi", "stop", (9, 3)) == (
        answer.choices[0].message.content.string_value,
        answer.choices[0].finish_reason,
        counted(answer),
    )
    assert UpstreamUnreadable is type(await failure(backend, call()))
    assert UpstreamRateLimited is type(await failure(backend, call()))


async def test_truncated_json_for_a_stream(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """A truncated JSON response to a streaming request raises StreamBroken."""
    body = json.dumps(completion("Hi"))[:-9]
    upstream.answer(Events([body]), Raw([f"HTTP/1.1 200 OK\r\nContent-Length: {len(body) + 9}\r\n\r\n{body}"]))
    for _ in range(2):
        assert StreamBroken is type(await failure(backend, call(), stream=True))


@pytest.mark.parametrize("stream", [False, True])
async def test_large_headers(backend: OpenAI, upstream: ScriptedUpstream, stream: bool) -> None:
    """Headers of 60 KB, and two hundred headers, are accepted."""
    headers = {"x-large": "x" * 60_000} | {f"x-{number}": "y" for number in range(200)}
    upstream.answer(
        Events([*chunks("Hi"), *ending()], headers=headers) if stream else Json(completion("Hi"), 200, headers)
    )
    if stream:
        assert "Hi" == text(await collect(backend, call()))
    else:
        assert "Hi" == (await backend.complete(call())).choices[0].message.content.string_value
