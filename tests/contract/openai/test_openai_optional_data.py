"""Optional and unknown data of OpenAI responses, streaming and not."""

import json
from typing import Any

import pytest

from parley.backends.openai.backend import OpenAI
from tests.contract.backends import (
    call,
    collect,
    completion_of,
)
from tests.contract.openai.answers import both, complete_answer
from tests.upstream import DONE, Events, Raw, ScriptedUpstream, chunk, completion, ending

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
