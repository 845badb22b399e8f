"""Request bodies of the OpenAI backend: unknown fields, vendors' tools, and resent responses."""

import json
from typing import Any

import pytest

from parley.backends.openai.backend import OpenAI
from parley.core.errors import InvalidRequest, UpstreamRejected
from tests.contract.backends import QUESTION, call, collect, text
from tests.upstream import Json, ScriptedUpstream

BIG = '{"zebra":18446744073709551616,"apple":[0.1000000000000000055,{"x":null}],"ü":"}\\""}'
SIGNED = '{"google":{"thought_signature":"CsAB"}}'


async def sent(backend: OpenAI, upstream: ScriptedUpstream, **fields: Any) -> Any:
    """Returns the body that the upstream receives."""
    await backend.complete(call(**fields))
    return upstream.requests[-1].json


async def test_unknown_fields_are_sent_exactly(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """Unknown fields are sent after the known ones, with exact key order and numbers, at every level."""
    function = {"name": "f", "arguments": "{}", "extra_json": BIG}
    called = [{"id": "c", "type": "function", "function": function, "extra_json": f'{{"extra_content":{SIGNED}}}'}]
    await backend.complete(
        call(
            messages=[
                {"role": "user", "content": "hi", "extra_json": '{"cache_control":{"type":"ephemeral"}}'},
                {"role": "assistant", "tool_calls": called, "extra_json": BIG},
                {"role": "tool", "tool_call_id": "c", "content": "1"},
            ],
            tools=[
                {
                    "type": "function",
                    "function": {"name": "f", "parameters_json": BIG, "extra_json": BIG},
                    "extra_json": '{"cache_control":{"type":"ephemeral"}}',
                }
            ],
            response_format={"type": "json_object", "extra_json": f'{{"schema":{BIG}}}'},
            prediction={"type": "content", "content": "x", "extra_json": BIG},
            extra_body_json=f'{{"own":{BIG}}}',
        )
    )
    members = BIG[1:-1]
    body = upstream.requests[0].raw.decode()
    for piece in (
        '{"role":"user","content":"hi","cache_control":{"type":"ephemeral"}}',
        '{"id":"c","type":"function","function":{"name":"f","arguments":"{}",'
        + members
        + '},"extra_content":'
        + SIGNED,
        '{"type":"function","function":{"name":"f","parameters":' + BIG + "," + members + '},"cache_control":',
        '"response_format":{"type":"json_object","schema":' + BIG + "}",
        '"prediction":{"type":"content","content":"x",' + members + "}",
        '"own":' + BIG,
    ):
        assert piece in body
    assert "extra_json" not in body


async def test_unknown_stream_options(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """Unknown stream options are sent with the option that Parley sets."""
    options = {"include_usage": False, "extra_json": '{"continuous_usage_stats":true}'}
    await collect(backend, call(stream=True, stream_options=options))
    assert {"include_usage": True, "continuous_usage_stats": True} == upstream.requests[0].json["stream_options"]


async def test_exact_text_of_a_value(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """The exact text of a `Value` field replaces the field."""
    parts = '[{"type":"x","n":18446744073709551616}]'
    message = {
        "role": "user",
        "content": [{"type": "x", "n": 18446744073709551616}],
        "extra_json": f'{{"content":{parts}}}',
    }
    await backend.complete(call(messages=[message]))
    assert f'[{{"role":"user","content":{parts}}}]'.encode() in upstream.requests[0].raw


@pytest.mark.parametrize(
    "extra", ['{"role":"system"}', r'{"\u0072ole":"system"}', '{"tool_calls":[]}', "[]", "{", "{}}"]
)
async def test_unknown_fields_cannot_replace_known_ones(
    backend: OpenAI, upstream: ScriptedUpstream, extra: str
) -> None:
    """A repeated field, or text that is not a JSON object, is rejected."""
    with pytest.raises(InvalidRequest, match="extra_json"):
        await backend.complete(call(messages=[{"role": "user", "content": "hi", "extra_json": extra}]))
    assert [] == upstream.requests


async def test_extra_members_of_every_shape(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """White space, escaped keys and empty objects in `extra_json` are accepted."""
    text = ' \n{ "a b" : [ ] ,\t"\\u00fc\\"" : { } , "c":-1.50e+3 , "d" : "{,}" }\r\n'
    await backend.complete(call(messages=[{"role": "user", "content": "hi", "extra_json": text}]))
    message = upstream.requests[0].json["messages"][0]
    assert {"role": "user", "content": "hi"} | json.loads(text) == message
    assert b'"c":-1.50e+3' in upstream.requests[0].raw


async def test_vendor_values_are_forwarded(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """Tools, formats and stop counts beyond OpenAI's are sent."""
    body = await sent(
        backend,
        upstream,
        tools=[
            {"type": "web_search", "extra_json": '{"search_context_size":"low"}'},
            {"type": "builtin_function", "function": {"name": "$web_search"}},
            {"type": "function", "function": {"name": "files.read:v1"}},
        ],
        stop=["a", "b", "c", "d", "e"],
        response_format={"type": "grammar", "extra_json": '{"grammar":"root ::= [a-z]"}'},
        tool_choice={"type": "web_search"},
    )
    assert [
        {"type": "web_search", "search_context_size": "low"},
        {"type": "builtin_function", "function": {"name": "$web_search"}},
        {"type": "function", "function": {"name": "files.read:v1"}},
    ] == body["tools"]
    assert ["a", "b", "c", "d", "e"] == body["stop"]
    assert {"type": "grammar", "grammar": "root ::= [a-z]"} == body["response_format"]
    assert {"type": "web_search"} == body["tool_choice"]


@pytest.mark.parametrize(
    ("delivered", "expected"),
    [
        ({}, {"content": ""}),
        ({"content": None}, {"content": ""}),
        ({"content": ""}, {"content": ""}),
        ({"content": None, "reasoning_content": "hm"}, {"content": "", "reasoning_content": "hm"}),
        ({"content": None, "refusal": "no"}, {"content": None, "refusal": "no"}),
        ({"content": None, "audio": {"id": "a", "data": "AAAA"}}, {"content": None, "audio": {"id": "a"}}),
        (
            {"content": None, "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}}]},
            {
                "content": None,
                "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{}"}, "type": "function"}],
            },
        ),
    ],
    ids=["nothing", "null", "empty", "reasoning alone", "a refusal", "sound", "calls"],
)
async def test_resent_answer(
    backend: OpenAI, upstream: ScriptedUpstream, delivered: dict[str, Any], expected: dict[str, Any]
) -> None:
    """An assistant message without text gets an empty content, which strict servers require."""
    messages = [QUESTION["messages"][0], {"role": "assistant", **delivered}, {"role": "user", "content": "go on"}]
    body = await sent(backend, upstream, messages=messages)
    assert {"role": "assistant", **expected} == body["messages"][1]


@pytest.mark.parametrize(
    "message",
    ["Unrecognized request argument supplied: stream_options", "Extra inputs are not permitted: body.stream_options"],
)
async def test_rejected_stream_options(backend: OpenAI, upstream: ScriptedUpstream, message: str) -> None:
    """A stream is retried without Parley's `stream_options`; later streams omit them from the start."""
    upstream.answer(Json({"error": {"message": message}}, status=400))
    for _ in range(2):
        assert text(await collect(backend, call()))
    assert [True, False, False] == ["stream_options" in one.json for one in upstream.requests]


async def test_rejected_stream_option_of_the_caller(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """A rejected stream option of the caller is an error and is not dropped."""
    upstream.answer(Json({"error": {"message": "Unknown parameter: stream_options.padding"}}, status=400))
    with pytest.raises(UpstreamRejected):
        await collect(backend, call(stream_options={"extra_json": '{"padding": true}'}))
    assert 1 == len(upstream.requests)


@pytest.mark.parametrize("delivered", [{}, {"arguments": None}])
async def test_a_call_without_arguments_is_sent_with_an_empty_object(
    backend: OpenAI, upstream: ScriptedUpstream, delivered: dict[str, Any]
) -> None:
    """A call without `arguments` is sent with an empty object, because servers require the field."""
    called = {"name": "f", **delivered}
    messages = [
        {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": called}]},
        {"role": "assistant", "function_call": called},
    ]
    one, other = (await sent(backend, upstream, messages=messages))["messages"]
    assert {"name": "f", "arguments": "{}"} == one["tool_calls"][0]["function"] == other["function_call"]


async def test_unknown_field_named_extra_json(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """An unknown field may have the name of the field that carries it, also beside a schema."""
    members = '{"z":1,"extra":"x","extra_json":{},"a":2}'
    function = {"name": "f", "parameters_json": "{}", "extra_json": members}
    body = await sent(backend, upstream, tools=[{"type": "function", "function": function}])
    assert ["name", "parameters", "z", "extra", "extra_json", "a"] == list(body["tools"][0]["function"])


async def test_annotations_are_never_sent(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """`annotations` are not sent, whether from the field or from unknown fields."""
    delivered = {
        "role": "assistant",
        "content": "a",
        "annotations": [{"type": "t"}],
        "extra_json": '{"annotations":[],"x":1}',
    }
    body = await sent(backend, upstream, messages=[{"role": "user", "content": "hi"}, delivered])
    assert {"role": "assistant", "content": "a", "x": 1} == body["messages"][1]
