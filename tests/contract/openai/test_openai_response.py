"""Complete answers of the OpenAI backend, with the variants of compatible servers."""

import json
from typing import Any

from google.protobuf import json_format

from parley.backends.openai.backend import OpenAI
from parley.v1.message_pb2 import Usage
from tests.contract.backends import (
    call,
)
from tests.contract.openai.answers import MODERATION
from tests.upstream import (
    USAGE,
    ScriptedUpstream,
    completion,
)

TOP = [{"token": "Hi", "logprob": -0.5, "bytes": [72, 105]}, {"token": "Yo", "logprob": -1.5, "bytes": None}]
LOGPROBS = {"content": [{"token": "Hi", "logprob": 0.0, "bytes": [72, 105], "top_logprobs": TOP}], "refusal": None}


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
