"""The OpenAI backend: request bodies, responses and streams, with the variants of compatible servers."""

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format

from parley.backends.openai.backend import OpenAI, Prefill
from parley.backends.openai.request import NOT_SENT
from parley.config import HttpHealthCheck
from parley.core.errors import (
    ContentPolicy,
    ContextLengthExceeded,
    InvalidRequest,
    ParleyError,
    StreamBroken,
    UpstreamMisconfigured,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from parley.core.messages.typed_fields import json_fields
from parley.core.ports import UpstreamCall
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.message_pb2 import Message, Usage
from tests.contract.backends import (
    KEY,
    QUESTION,
    broken_off,
    call,
    collect,
    joined,
    reasons,
    text,
)
from tests.upstream import (
    DONE,
    USAGE,
    Cut,
    Events,
    Gate,
    Json,
    Raw,
    ScriptedUpstream,
    Stall,
    chunk,
    chunks,
    completion,
    ending,
    stream,
)

SCHEMA = {"type": "object", "properties": {"zebra": {"type": "string", "maxLength": 5}, "apple": {"minimum": 0.5}}}

EVERYTHING: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Be brief.", "name": "boss"},
        {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "u"}}]},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"b":1, "a":2}'}},
                {"id": "c2", "type": "custom", "custom": {"name": "g", "input": "free text"}},
            ],
            "refusal": "rather not",
            "reasoning_content": "hm",
            "audio": {"id": "audio_1"},
        },
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
        {"role": "assistant", "content": "", "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "0"},
    ],
    "temperature": 0.0,
    "top_p": 0.25,
    "n": 2,
    "stop": ["a", "b"],
    "max_tokens": 10,
    "max_completion_tokens": 20,
    "presence_penalty": -1.5,
    "frequency_penalty": 0.5,
    "logit_bias": {"50256": -100},
    "logprobs": True,
    "top_logprobs": 3,
    "seed": 2**60,
    "user": "u1",
    "tools": [
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA, "strict": False}},
        {"type": "custom", "custom": {"name": "g", "description": "d", "format": {"type": "text"}}},
    ],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "parallel_tool_calls": False,
    "functions": [{"name": "f", "description": "d", "parameters": SCHEMA}],
    "function_call": "auto",
    "response_format": {
        "type": "json_schema",
        "json_schema": {"name": "s", "description": "d", "schema": SCHEMA, "strict": True},
    },
    "reasoning_effort": "low",
    "verbosity": "high",
    "service_tier": "flex",
    "prompt_cache_key": "k",
    "safety_identifier": "s",
    "prediction": {"type": "content", "content": [{"type": "text", "text": "x"}]},
    "modalities": ["text", "audio"],
    "audio": {"voice": {"id": "v"}, "format": "wav"},
    "web_search_options": {
        "search_context_size": "low",
        "user_location": {
            "type": "approximate",
            "approximate": {"city": "Bern", "country": "CH", "region": "Bern", "timezone": "Europe/Zurich"},
        },
    },
    "prompt_cache_retention": "24h",
    "prompt_cache_options": {"mode": "explicit", "ttl": "30m"},
    "moderation": {"model": "omni", "policy": {"input": {"mode": "block"}, "output": {"mode": "score"}}},
}


async def refused(backend: OpenAI, **fields: Any) -> ParleyError:
    """Returns the error of a non-streaming call."""
    with pytest.raises(ParleyError) as caught:
        await backend.complete(call(**fields))
    return caught.value


async def test_every_field_is_sent(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """Every documented field that is set is sent unchanged, and nothing else."""
    await backend.complete(call(**EVERYTHING))
    assert EVERYTHING | {"model": "target-1"} == upstream.requests[0].json


def test_no_field_is_forgotten() -> None:
    """The test above covers every field of requests and messages that is sent to the upstream."""
    fields = {field.name for field in json_fields(CreateChatCompletionRequest.DESCRIPTOR)}
    assert fields == {*EVERYTHING, *NOT_SENT, "model"}
    delivered = {name for message in EVERYTHING["messages"] for name in message}
    assert {field.name for field in json_fields(Message.DESCRIPTOR)} == {
        *delivered,
        "annotations",
        "extra",
        "extra_json",
    }


async def test_unset_fields_are_not_sent(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """Unset fields are not sent."""
    await backend.complete(call())
    assert {"model": "target-1", "messages": QUESTION["messages"]} == upstream.requests[0].json


async def test_parley_fields_are_not_sent(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """The session, `store` and `metadata` are not sent."""
    await backend.complete(call(chatSessionId="s", store=True, metadata={"a": "b"}, stream=False))
    assert {"model", "messages"} == set(upstream.requests[0].json)


async def test_request_line_and_headers(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """The key is sent in `authorization`; the path is the base URL's plus `/chat/completions`."""
    await backend.complete(call())
    request = upstream.requests[0]
    assert ("POST", "/v1/chat/completions") == (request.method, request.path)
    assert f"Bearer {KEY}" == request.headers["authorization"]
    assert "application/json" == request.headers["content-type"]
    assert "cookie" not in request.headers


async def test_no_key(upstream: ScriptedUpstream) -> None:
    """Without a key there is no `authorization` header; a trailing slash of the base URL is ignored."""
    backend = OpenAI(upstream.url + "/")
    await backend.complete(call())
    await backend.close()
    assert "authorization" not in upstream.requests[0].headers
    assert "/v1/chat/completions" == upstream.requests[0].path


async def test_cookies_are_not_stored(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """A cookie from one response is not sent with later requests."""
    upstream.answer(Json(completion(), headers={"Set-Cookie": "who=ada; Path=/"}))
    await backend.complete(call())
    await backend.complete(call())
    assert "cookie" not in upstream.requests[1].headers


async def test_streams_request_usage(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """A streaming request always includes `include_usage`."""
    await collect(backend, call(stream=True, stream_options={"include_usage": False}))
    sent = upstream.requests[0].json
    assert (True, {"include_usage": True}) == (sent["stream"], sent["stream_options"])


async def test_key_order(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """JSON Schemas given as text are sent unchanged and take precedence over the Struct."""
    exact = '{"zebra":{"type":"string"},"apple":1,"mango":[1.5,"ü"]}'
    upstream_call = call(tools=EVERYTHING["tools"], functions=EVERYTHING["functions"])
    upstream_call.request.tools[0].function.parameters_json = exact
    upstream_call.request.functions[0].parameters_json = exact
    upstream_call.request.response_format.type = "json_schema"
    upstream_call.request.response_format.json_schema.schema_json = exact
    await backend.complete(upstream_call)
    sent = upstream.requests[0].json
    found = [
        sent["tools"][0]["function"]["parameters"],
        sent["functions"][0]["parameters"],
        sent["response_format"]["json_schema"]["schema"],
    ]
    assert [exact] * 3 == [json.dumps(item, separators=(",", ":"), ensure_ascii=False) for item in found]
    assert ["name", "description", "parameters", "strict"] == list(sent["tools"][0]["function"])


@pytest.mark.parametrize("exact", ["[]", "{", "3", "", '{}, "model": "other"', "{}}"])
async def test_schema_must_be_an_object(backend: OpenAI, upstream: ScriptedUpstream, exact: str) -> None:
    """Text that is not a JSON object is rejected, so it cannot change the enclosing body."""
    upstream_call = call(tools=[{"type": "function", "function": {"name": "f"}}])
    upstream_call.request.tools[0].function.parameters_json = exact
    with pytest.raises(InvalidRequest):
        await backend.complete(upstream_call)
    assert [] == upstream.requests


async def test_integers(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """Integers inside JSON values are sent as integers."""
    await backend.complete(call(extra_body={"top_k": 40, "min_p": 0.05, "nested": {"list": [1, 2.5]}}))
    assert b'"top_k":40' in upstream.requests[0].raw
    assert b"[1,2.5]" in upstream.requests[0].raw


async def test_key_order_of_extra_body(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """`extra_body_json` takes precedence over the Struct and keeps key order and integers."""
    exact = '{"zebra":{"b":1,"a":[2.5,9007199254740993]},"apple":null}'
    upstream_call = call(extra_body={"top_k": 40})
    upstream_call.request.extra_body_json = exact
    await backend.complete(upstream_call)
    sent = upstream.requests[0].json
    assert exact == json.dumps(
        {key: sent[key] for key in sent if key not in ("model", "messages")}, separators=(",", ":")
    )


@pytest.mark.parametrize("exact", ["[]", "{", "3", "", "{}}", '{"model": "other"}', r'{"mod\u0065l": "other"}'])
async def test_extra_body_json_is_validated(backend: OpenAI, upstream: ScriptedUpstream, exact: str) -> None:
    """Text that is not a JSON object, or repeats a field, is rejected."""
    upstream_call = call()
    upstream_call.request.extra_body_json = exact
    with pytest.raises(InvalidRequest):
        await backend.complete(upstream_call)
    assert [] == upstream.requests


async def test_tool_choice_with_large_numbers(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """The exact text of a `Value` field replaces the field; other repeated fields are rejected."""
    choice = '{"type":"x","n":18446744073709551617,"d":0.10000000000000000001}'
    upstream_call = call(tool_choice={"type": "x", "n": 2**64, "d": 0.1})
    upstream_call.request.extra_body_json = f'{{"tool_choice": {choice}, "top_k": 1}}'
    await backend.complete(upstream_call)
    raw = upstream.requests[0].raw.decode()
    assert [1, 1] == [raw.count(choice), raw.count("tool_choice")]
    assert 1 == upstream.requests[0].json["top_k"]
    upstream_call.request.extra_body_json = f'{{"tool_choice": {choice}, "stop": "a"}}'
    with pytest.raises(InvalidRequest, match="stop"):
        await backend.complete(upstream_call)


async def test_extra_body(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """`extra_body` is merged into the body."""
    await backend.complete(call(extra_body={"top_k": 40}))
    assert 40 == upstream.requests[0].json["top_k"]


@pytest.mark.parametrize("key", ["model", "messages", "temperature", "stream", "store", "chatSessionId"])
async def test_extra_body_repeats_a_field(backend: OpenAI, upstream: ScriptedUpstream, key: str) -> None:
    """A key of `extra_body` that is a field of the request is rejected."""
    failed = await refused(backend, extra_body={key: 1})
    assert (InvalidRequest, f"extra_body.{key}") == (type(failed), failed.param)
    assert [] == upstream.requests


async def test_unix_socket(tmp_path: Path) -> None:
    """The upstream may listen on a Unix socket."""
    with ScriptedUpstream(tmp_path / "up.sock") as upstream:
        backend = OpenAI("http://local/v1", unix_socket=tmp_path / "up.sock")
        answer = await backend.complete(call())
        await backend.close()
    assert "Hello there." == answer.choices[0].message.content.string_value
    assert "local" == upstream.requests[0].headers["host"]


TOP = [{"token": "Hi", "logprob": -0.5, "bytes": [72, 105]}, {"token": "Yo", "logprob": -1.5, "bytes": None}]
LOGPROBS = {"content": [{"token": "Hi", "logprob": 0.0, "bytes": [72, 105], "top_logprobs": TOP}], "refusal": None}
MODERATION = {"input": {"type": "moderation_results", "results": [{"flagged": False, "category_scores": {"x": 0.5}}]}}


async def test_full_answer(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """Every documented field of a response is parsed."""
    body = completion(
        None,
        tool_calls=[
            {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
            {"id": "c2", "type": "custom", "custom": {"name": "g", "input": "x"}},
        ],
        refusal="no",
        reasoning_content="hm",
        annotations=[{"type": "url_citation", "url_citation": {"url": "u", "start_index": 3}}],
        audio={"id": "a", "expires_at": 1700000000, "data": "AAAA", "transcript": "t"},
        function_call={"name": "h", "arguments": "{}"},
    )
    body["service_tier"] = "default"
    body["choices"][0]["logprobs"] = LOGPROBS
    body["usage"] = USAGE | {
        "prompt_tokens_details": {
            "cached_tokens": 0,
            "audio_tokens": 1,
            "text_tokens": 6,
            "image_tokens": 7,
            "video_tokens": 8,
            "file_tokens": 9,
            "cache_write_tokens": 10,
            "new": 5,
        },
        "completion_tokens_details": {
            "reasoning_tokens": 2,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 3,
            "rejected_prediction_tokens": 4,
            "text_tokens": 5,
            "image_tokens": 0,
        },
        "prompt_cache_hit_tokens": 3,
        "prompt_cache_miss_tokens": 0,
        "cost": 0.95,
        "cost_details": {"upstream_inference_cost": 19, "a": None},
    }
    body["moderation"] = MODERATION
    upstream.answer(body)
    answer = json_format.MessageToDict(await backend.complete(call(top_logprobs=2)), preserving_proto_field_name=True)
    message = answer["choices"][0]["message"]
    expected = body["choices"][0]["message"]
    assert {"annotations": expected["annotations"]} == json.loads(message.pop("extra_json"))
    assert expected == message
    assert "tool_calls" == answer["choices"][0]["finish_reason"]
    del body["usage"]["prompt_tokens_details"]["new"]
    assert '{"new":5}' == answer["usage"]["prompt_tokens_details"].pop("extra_json")
    assert {"cost_details": body["usage"]["cost_details"]} == json.loads(answer["usage"].pop("extra_json"))
    assert (body["usage"], MODERATION) == (answer["usage"], answer["moderation"])
    assert {field.name for field in Usage.DESCRIPTOR.fields} - {"extra", "extra_json"} == answer["usage"].keys()
    assert ("fp_scripted", "default") == (answer["system_fingerprint"], answer["service_tier"])
    token = answer["choices"][0]["logprobs"]["content"][0]
    assert {"token": "Hi", "logprob": 0.0, "bytes": [72, 105]}.items() <= token.items()
    assert [TOP[0], {"token": "Yo", "logprob": -1.5}] == token["top_logprobs"]


async def test_a_token_without_text(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """An empty token of logprobs is kept as an empty string."""
    empty = {"token": "", "logprob": -1.0, "bytes": []}
    body = completion()
    body["choices"][0]["logprobs"] = {"content": [empty | {"top_logprobs": [empty]}]}
    upstream.answer(body)
    token = (await backend.complete(call(logprobs=True, top_logprobs=1))).choices[0].logprobs.content[0]
    assert (True, True) == (token.HasField("token"), token.top_logprobs[0].HasField("token"))


async def test_unrequested_alternatives(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """Alternative tokens beyond `top_logprobs` are dropped."""
    body = completion()
    body["choices"][0]["logprobs"] = LOGPROBS
    upstream.answer(body, body)
    counts = []
    for top in (None, 1):
        upstream_call: dict[str, Any] = {} if top is None else {"top_logprobs": top}
        answer = await backend.complete(call(logprobs=True, **upstream_call))
        assert answer.choices[0].logprobs.content[0].HasField("logprob")
        counts.append(len(answer.choices[0].logprobs.content[0].top_logprobs))
    assert [0, 1] == counts


async def test_sparse_answer(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """Missing or null fields of a response are accepted; the finish reason is always set."""
    upstream.answer({"choices": [{"message": {"content": "a"}}, {"message": {}, "index": None}], "usage": None})
    answer = await backend.complete(call())
    assert [0, 1] == [choice.index for choice in answer.choices]
    assert "null_value" == answer.choices[1].message.content.WhichOneof("kind")
    assert ["stop", "stop"] == [choice.finish_reason for choice in answer.choices]
    assert not answer.HasField("usage")


async def test_variants_of_other_servers(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """`reasoning`, content parts and arguments as an object are accepted."""
    call_ = {"id": "c", "function": {"name": "f", "arguments": {"a": 1}}}
    upstream.answer(completion([{"type": "text", "text": "x"}], reasoning="hm", tool_calls=[call_]))  # type: ignore[arg-type]
    message = (await backend.complete(call())).choices[0].message
    assert "hm" == message.reasoning_content
    assert "x" == message.content.string_value
    assert ("function", '{"a":1}') == (message.tool_calls[0].type, message.tool_calls[0].function.arguments)


async def test_malformed_cost_is_ignored(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """A malformed `cost` is ignored, because vendors differ in its format."""
    upstream.answer(completion() | {"usage": USAGE | {"cost": {"total_cost": 0.005}, "cost_details": "none"}})
    usage = (await backend.complete(call())).usage
    assert (False, False) == (usage.HasField("cost"), usage.HasField("cost_details"))


async def test_error_with_status_200(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """An error body with status 200 is an error."""
    upstream.answer({"error": {"message": "please reduce the length of the messages", "code": 400}})
    assert ContextLengthExceeded is type(await refused(backend))


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"error": {"message": "x", "code": "context_length_exceeded"}}),
        (400, {"error": {"code": 400, "message": "the request exceeds …", "type": "exceed_context_size_error"}}),
        (400, {"object": "error", "message": "This model's maximum context length is 4096 tokens.", "code": 400}),
        (400, {"error": {"message": "You passed 9000 input tokens … the model's context length is only 4096"}}),
        (400, {"error": {"message": "prompt is too long: 210000 tokens > 200000 maximum"}}),
        (422, {"detail": "Prompt contains 9 tokens … too large for model with 8 maximum context length"}),
        (413, {"error": {"message": "Please reduce the length of the messages or completion."}}),
        (400, [{"error": {"message": "The input token count (9) exceeds the maximum number of tokens allowed (8)."}}]),
    ],
)
async def test_context_length_messages(backend: OpenAI, upstream: ScriptedUpstream, status: int, body: Any) -> None:
    """Each server's message for an exceeded context is recognized."""
    upstream.answer(Json(body, status))
    assert ContextLengthExceeded is type(await refused(backend))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"error": "no such thing"}, "no such thing"),
        ({"message": "no such thing"}, "no such thing"),
        ({"detail": "no such thing"}, "no such thing"),
        ({"detail": [{"loc": ["body", "n"], "msg": "too big"}]}, "n: too big"),
        ({"error": {"message": "no such thing", "code": ["odd"], "type": {}}}, "no such thing"),
        ("no such thing", "no such thing"),
        ({}, 'The model "myapp-123" refused the request'),
        (None, 'The model "myapp-123" refused the request'),
    ],
)
async def test_rejection_messages(backend: OpenAI, upstream: ScriptedUpstream, body: Any, message: str) -> None:
    """The message of a rejection is found in each server's format."""
    upstream.answer(Json(body, 400))
    failed = await refused(backend)
    assert (UpstreamRejected, message) == (type(failed), failed.message)


async def test_rejected_parameter(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """The rejected parameter and the code are forwarded."""
    upstream.answer(Json({"error": {"message": "bad", "param": "logit_bias[1]", "code": "unsupported_value"}}, 400))
    failed = await refused(backend)
    assert isinstance(failed, UpstreamRejected)
    assert ("logit_bias[1]", "unsupported_value") == (failed.param, failed.code)


@pytest.mark.parametrize(
    ("fault", "kind", "param", "code"),
    [
        ({"code": "content_policy_violation", "param": None}, ContentPolicy, None, "content_policy_violation"),
        ({"code": "content_filter", "param": "prompt"}, ContentPolicy, "prompt", "content_filter"),
        ({"type": "content_filter", "code": 400}, ContentPolicy, None, "content_filter"),
        ({"code": "context_length_exceeded"}, ContextLengthExceeded, "messages", "context_length_exceeded"),
        (
            {"code": "string_above_max_length", "param": "messages[3].content"},
            ContextLengthExceeded,
            "messages[3].content",
            "string_above_max_length",
        ),
    ],
)
async def test_upstream_code(
    backend: OpenAI,
    upstream: ScriptedUpstream,
    fault: dict[str, Any],
    kind: type[UpstreamRejected],
    param: str | None,
    code: str,
) -> None:
    """The code of an error is the upstream's code, or else its type."""
    upstream.answer(Json({"error": {"message": "bad", **fault}}, 400))
    failed = await refused(backend)
    assert isinstance(failed, UpstreamRejected)
    assert (kind, param, code) == (type(failed), failed.param, failed.code)


@pytest.mark.parametrize("odd", ["", "a b", "a\r\nb: c", "ü", "x" * 65, KEY, "sk-proj-0815", 7, None, ["a"], {"a": 1}])
async def test_unsafe_codes_are_dropped(backend: OpenAI, upstream: ScriptedUpstream, odd: Any) -> None:
    """Codes and parameters that are not short words, or look like keys, are dropped: they are sent in headers."""
    upstream.answer(Json({"error": {"message": "bad", "param": odd, "code": odd}}, 400))
    failed = await refused(backend)
    assert isinstance(failed, UpstreamRejected)
    assert (None, None) == (failed.param, failed.code)


async def test_html_error_page(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """An HTML error page of a proxy is not shown to the caller."""
    page = "<html>nginx at 10.0.0.7</html>"
    upstream.answer(Raw([f"HTTP/1.1 400 Bad\r\nContent-Length: {len(page)}\r\n\r\n{page}"]))
    assert 'The model "myapp-123" refused the request' == (await refused(backend)).message


async def test_moderated_with_another_status(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """Rejected content is recognized by its code; another 403 means a wrong key."""
    upstream.answer(Json({"error": {"message": "flagged", "code": "content_filter"}}, 403), Json({}, 403))
    assert ContentPolicy is type(await refused(backend))
    assert UpstreamMisconfigured is type(await refused(backend))


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
    async for part in backend.stream(call(timeouts={"stream_idle": 0.5})):
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
    chunks_of = backend.stream(call())
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


DELIVERED = "The wine-dark sea is"


def continuation(delivered: str = DELIVERED, **fields: Any) -> UpstreamCall:
    """Creates a call that continues an answer from its beginning."""
    messages = [*QUESTION["messages"], {"role": "assistant", "content": delivered}]
    return dataclasses.replace(call(messages=messages, **fields), has_prefill=True)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("prefill", "more", "last"),
    [
        ("message", {}, {}),
        ("vllm", {"continue_final_message": True, "add_generation_prompt": False}, {}),
        ("prefix", {}, {"prefix": True}),
    ],
)
async def test_prefill_modes(
    upstream: ScriptedUpstream, prefill: Prefill, more: dict[str, Any], last: dict[str, Any], stream: bool
) -> None:
    """A continuation is marked as each server requires; other calls have no mark."""
    backend = OpenAI(upstream.url, prefill=prefill)
    for upstream_call in (continuation(), call()):
        await (collect(backend, upstream_call) if stream else backend.complete(upstream_call))
    await backend.close()
    sent, usual = (request.json for request in upstream.requests)
    assert {"role": "assistant", "content": DELIVERED, **last} == sent["messages"][-1]
    assert more == {name: sent[name] for name in sent.keys() - usual.keys()}
    assert QUESTION["messages"] == usual["messages"]


@pytest.mark.parametrize(
    ("url", "prefill", "expected"),
    [
        ("https://api.openai.com/v1", None, False),
        ("https://eu.api.openai.com/v1", None, False),
        ("https://my-firm.openai.azure.com/openai/v1", None, False),
        ("https://my-firm.services.ai.azure.com/openai/v1/", None, False),
        ("https://API.OpenAI.com:443/v1", None, False),
        ("https://api.openai.com/v1", "message", True),
        ("https://openrouter.ai/api/v1", None, True),
        ("https://notapi.openai.com.example/v1", None, True),
        ("http://127.0.0.1:8000/v1", None, True),
        ("http://127.0.0.1:8000/v1", "off", False),
    ],
)
def test_default_prefill(url: str, prefill: Prefill | None, expected: bool) -> None:
    """Prefill is off for OpenAI and Azure and on for others, unless configured."""
    assert expected is OpenAI(url, prefill=prefill).supports_prefill


@pytest.mark.parametrize(
    ("answered", "expected"),
    [
        (" vast.", " vast."),
        ("The wine-dark sea is vast.", " vast."),
        ("The wine-dark sea is", ""),
        ("The wine-dark sea", "The wine-dark sea"),
        ("The wine-dark sea isThe wine-dark sea is", "The wine-dark sea is"),
        ("Vast. The wine-dark sea is", "Vast. The wine-dark sea is"),
        ("", ""),
    ],
)
async def test_repeated_prefix_is_removed(
    backend: OpenAI, upstream: ScriptedUpstream, answered: str, expected: str
) -> None:
    """A full repetition of the delivered text is removed, streaming or not."""
    upstream.answer(completion(answered), stream(answered), stream(*answered), completion(answered))
    assert expected == (await backend.complete(continuation())).choices[0].message.content.string_value
    assert expected == text(await collect(backend, continuation()))
    chunks = await collect(backend, continuation())
    assert (expected, ["stop"]) == (text(chunks), reasons(chunks))
    if answered:
        assert answered == (await backend.complete(call())).choices[0].message.content.string_value


@pytest.mark.parametrize(("prefill", "expected"), [("message", "haha!"), ("vllm", "haha!"), ("prefix", "ha!")])
async def test_short_prefix(upstream: ScriptedUpstream, prefill: Prefill, expected: str) -> None:
    """A repetition of a short text in a stream is kept, except for servers known to repeat the prefix."""
    backend = OpenAI(upstream.url, prefill=prefill)
    upstream.answer(stream("ha", "ha", "!"))
    assert expected == text(await collect(backend, continuation("ha")))
    await backend.close()


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["The wine-dark", " sea", " is", " vast", "."], [" vast", "."]),
        (["The wine-dark", " sea", " was"], ["The wine-dark", " sea", " was"]),
        (["The wine-dark sea is"], []),
    ],
)
async def test_logprobs_of_a_repeated_prefix(
    backend: OpenAI, upstream: ScriptedUpstream, tokens: list[str], expected: list[str]
) -> None:
    """The logprobs of a removed prefix are removed, too, with or without bytes."""
    for as_bytes in (True, False):
        steps = [chunk({"content": token}) for token in tokens]
        for step, token in zip(steps, tokens, strict=True):
            logprob = {"token": token, "logprob": -0.5, "bytes": list(token.encode()) if as_bytes else None}
            step["choices"][0]["logprobs"] = {"content": [logprob]}
        upstream.answer(Events([*steps, *ending()]), Events([*steps, *ending()], together=True))
        for _ in range(2):
            chunks = await collect(backend, continuation(logprobs=True))
            choices = [choice for one in chunks for choice in one.choices]
            assert expected == [item.token for choice in choices for item in choice.logprobs.content]
            assert "".join(expected) == text(chunks)


async def test_prefix_of_each_choice(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """The prefix is removed from each choice independently; null content stays null."""
    first, second = chunk({"content": "The wine-dark sea is wet"}), chunk({"content": "The"}, index=1)
    upstream.answer(Events([first, second, chunk({"content": "y"}, "stop", 1), *ending()]), completion(None))
    chunks = await collect(backend, continuation(n=2))
    assert (" wet", "They") == (text(chunks), text(chunks, 1))
    answer = await backend.complete(continuation())
    assert answer.choices[0].message.content.HasField("null_value")


async def test_rejected_prefill(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """A server without prefill rejects the request."""
    message = "Assistant response prefill is incompatible with enable_thinking."
    upstream.answer(Json({"error": {"code": 400, "message": message, "type": "invalid_request_error"}}, 400))
    with pytest.raises(UpstreamRejected) as caught:
        await collect(backend, continuation())
    assert (UpstreamRejected, message) == (type(caught.value), caught.value.message)


async def test_check(upstream: ScriptedUpstream) -> None:
    """A health check succeeds on status 200 of a GET for the configured path, sent with the key."""
    backend = OpenAI(upstream.url, KEY, health=HttpHealthCheck(path="/healthz?deep=1"))
    upstream.answer(Json({"status": "ok"}))
    await backend.check()
    await backend.close()
    received = upstream.requests[0]
    assert ("GET", "/healthz?deep=1", b"") == (received.method, received.path, received.raw)
    assert f"Bearer {KEY}" == received.headers["authorization"]


@pytest.mark.parametrize(
    ("answer", "error", "cause"),
    [
        (Json({"loading": KEY}, 503), UpstreamUnavailable, 'HTTP 503: {"loading": "…"}'),
        (Json({}, 202), UpstreamUnavailable, "HTTP 202"),
        (Json({}, 302, {"Location": "/elsewhere"}), UpstreamUnavailable, "HTTP 302"),
        (Raw([Cut()]), UpstreamUnavailable, "ServerDisconnectedError"),
        (Raw([Stall()]), UpstreamTimeout, "no answer within 0.1 s"),
        (Raw(["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", Stall()]), UpstreamTimeout, "no answer within"),
    ],
)
async def test_failed_check(
    upstream: ScriptedUpstream, answer: Json | Raw, error: type[ParleyError], cause: str
) -> None:
    """Any other result fails the health check; its cause does not contain the key."""
    backend = OpenAI(upstream.url, KEY, health=HttpHealthCheck(timeout=0.1 if isinstance(answer, Raw) else 10))
    upstream.answer(answer)
    with pytest.raises(error) as caught:
        await backend.check()
    await backend.close()
    assert error is type(caught.value)
    assert cause in (caught.value.cause or "")
    assert "/health: " in (caught.value.cause or "")
