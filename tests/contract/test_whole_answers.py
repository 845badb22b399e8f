"""A streamed answer equals the complete answer, field by field."""

from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict

from parley.backends.anthropic.backend import Anthropic
from parley.backends.openai.backend import OpenAI
from parley.config.loader import parse
from parley.core.messages.text_completion import as_message
from parley.core.ports import Backend, Caller
from parley.core.routing.router import Router
from tests import upstream as openai
from tests.contract import anthropic_api as anthropic
from tests.contract.backends import request
from tests.upstream import Answer, Events, Json, Received, ScriptedUpstream, Step

CONFIG = """
backends: {up: {kind: openai, base_url: "http://127.0.0.1:1/v1"}}
models:
  - {id: whole, targets: [{backend: up}], whole_answers: whole}
  - {id: stream, targets: [{backend: up}], whole_answers: stream}
"""
USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 40,
    "total_tokens": 49,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 30},
}


def _token(text: str) -> dict[str, Any]:
    rivals = [{"token": "x", "logprob": -2.5, "bytes": [120]}, {"token": "y", "logprob": -3.5, "bytes": None}]
    return {"token": text, "logprob": -0.25, "bytes": list(text.encode()), "top_logprobs": rivals}


def _call(number: int) -> dict[str, Any]:
    arguments = f'{{"place": "Rome", "day": {number}}}'
    return {"id": f"call_{number}", "type": "function", "function": {"name": f"find_{number}", "arguments": arguments}}


EXTRA: dict[str, Any] = {"citations": ["https://a.example"], "big": 12345678901234567890}

ANSWERS: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    # The fields of the request; the choices of the answer.
    "text": ({}, [{"message": {"content": "Hello there, you."}, "finish_reason": "stop"}]),
    "cut off": ({"max_tokens": 3}, [{"message": {"content": "Hello"}, "finish_reason": "length"}]),
    "two choices": (
        {"n": 2},
        [
            {"message": {"content": "One of them."}, "finish_reason": "stop"},
            {"message": {"content": "The other."}, "finish_reason": "length"},
        ],
    ),
    "probabilities": (
        {"logprobs": True, "top_logprobs": 2},
        [
            {
                "message": {"content": "Hi you"},
                "logprobs": {"content": [_token("Hi"), _token(" you")], "refusal": None},
                "finish_reason": "stop",
            }
        ],
    ),
    "reasoning": ({}, [{"message": {"content": "4", "reasoning_content": "2 + 2"}, "finish_reason": "stop"}]),
    "tool calls": (
        {},
        [{"message": {"content": None, "tool_calls": [_call(1), _call(2)]}, "finish_reason": "tool_calls"}],
    ),
    "text and a tool call": (
        {},
        [{"message": {"content": "Let me look.", "tool_calls": [_call(1)]}, "finish_reason": "tool_calls"}],
    ),
    "a custom tool call": (
        {},
        [
            {
                "message": {
                    "content": None,
                    "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "sql", "input": "SELECT 1"}}],
                },
                "finish_reason": "tool_calls",
            }
        ],
    ),
    "a function call": (
        {},
        [
            {
                "message": {"content": None, "function_call": {"name": "find", "arguments": "{}"}},
                "finish_reason": "function_call",
            }
        ],
    ),
    "a refusal": ({}, [{"message": {"content": None, "refusal": "I cannot do that."}, "finish_reason": "stop"}]),
    "annotations": (
        {"web_search_options": {}},
        [
            {
                "message": {
                    "content": "It rains.",
                    "annotations": [
                        {"type": "url_citation", "url_citation": {"url": "https://a.example", "title": "A"}}
                    ],
                },
                "finish_reason": "stop",
            }
        ],
    ),
}


def _deltas(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Splits a message into deltas, as servers do."""
    deltas: list[dict[str, Any]] = [{"role": "assistant"}]
    for name in ("reasoning_content", "refusal", "content"):
        text = message.get(name)
        deltas += [{name: text[: len(text) // 2]}, {name: text[len(text) // 2 :]}] if text else []
    for index, call in enumerate(message.get("tool_calls", ())):
        kind, text = ("custom", "input") if "custom" in call else ("function", "arguments")
        non_streaming = call[kind][text]
        deltas.append({"tool_calls": [{**call, "index": index, kind: {**call[kind], text: ""}}]})
        deltas += [
            {"tool_calls": [{"index": index, kind: {text: piece}}]} for piece in (non_streaming[:5], non_streaming[5:])
        ]
    if "function_call" in message:
        deltas.append({"function_call": message["function_call"]})
    if "annotations" in message:
        deltas.append({"annotations": message["annotations"]})
    return deltas


def _events(choices: list[dict[str, Any]], **tags: Any) -> list[Step]:
    steps: list[Step] = []
    for index, choice in enumerate(choices):
        steps += [openai.chunk(delta, index=index, **tags) for delta in _deltas(choice["message"])]
        last = openai.chunk(finish=choice["finish_reason"], index=index, **tags)
        last["choices"][0]["logprobs"] = choice.get("logprobs")
        steps.append(last)
    return [*steps, openai.chunk(choices=[], usage=USAGE, **tags), openai.DONE]


async def _both(backend: Backend, **fields: Any) -> list[dict[str, Any]]:
    """Returns the answer to one request, non-streaming and streaming."""
    router = Router(parse(CONFIG, "f"), {"up": backend})
    answers = []
    for model_id in ("whole", "stream"):
        model = router.model(Caller("default", "key_1"), model_id)
        request_ = request(**fields)
        run = router.new_execution(model, request_, request_.messages, session_id=None, deadline=None)
        answer = as_message(await run.complete())
        receipt = run.receipt()
        assert receipt.usage == answer.usage
        answers.append(MessageToDict(answer))
    await backend.close()
    return answers


@pytest.mark.parametrize("case", ANSWERS)
async def test_openai(case: str) -> None:
    """Texts, choices, logprobs, calls, refusals, annotations, usage, tier and fingerprint are equal."""
    fields, choices = ANSWERS[case]
    tags = {"system_fingerprint": "fp_1", "service_tier": "flex"}
    listed = [{"index": index, **choice} for index, choice in enumerate(choices)]
    for choice in listed:
        choice["message"] = {"role": "assistant", **choice["message"]}

    def answer(received: Received) -> Answer:
        if received.json.get("stream"):
            return Events(_events(choices, **tags))
        return Json(openai.completion() | {"choices": listed, "usage": USAGE} | tags)

    with ScriptedUpstream() as upstream:
        upstream.default = answer
        non_streaming, joined = await _both(OpenAI(upstream.url), **fields)
        assert [None, True] == [received.json.get("stream") for received in upstream.requests]
    assert non_streaming == joined
    assert {"choices", "usage", "system_fingerprint", "service_tier"} <= joined.keys()


async def test_unknown_fields() -> None:
    """Unknown fields of the response, a choice, its message and a tool call are equal."""
    call = {**_call(1), "extra_content": {"google": {"thought_signature": "sig"}}}
    message = {"role": "assistant", "content": None, "tool_calls": [call], "images": [{"url": "https://b.example"}]}
    choice = {"index": 0, "finish_reason": "tool_calls", "native_finish_reason": "STOP"}
    last = openai.chunk(**EXTRA, system_fingerprint="fp_scripted")
    last["choices"] = [choice | {"delta": {}}]

    def answer(received: Received) -> Answer:
        if not received.json.get("stream"):
            return Json(openai.completion() | {"choices": [choice | {"message": message}]} | EXTRA)
        delta = {**message, "tool_calls": [call | {"index": 0}]}
        end = openai.chunk(choices=[], usage=openai.USAGE)
        return Events([openai.chunk(delta), last, end, openai.DONE])

    with ScriptedUpstream() as upstream:
        upstream.default = answer
        non_streaming, joined = await _both(OpenAI(upstream.url))
    assert non_streaming == joined
    assert "12345678901234567890" in joined["extra_json"]
    assert "thought_signature" in str(joined["choices"][0]["message"]["tool_calls"])


async def test_a_server_that_does_not_stream() -> None:
    """A complete response to a streaming request gives the same answer."""
    with ScriptedUpstream() as upstream:
        upstream.default = lambda _: Json(openai.completion())
        non_streaming, joined = await _both(OpenAI(upstream.url))
        assert 2 == len(upstream.requests)
    assert non_streaming == joined


async def test_anthropic() -> None:
    """Thinking, text, a tool call and usage are equal."""
    tool = {"type": "tool_use", "id": "toolu_1", "name": "find", "input": {"place": "Rome"}}
    blocks = [{"type": "thinking", "thinking": "Where?", "signature": "s1"}, anthropic.text_block("Let me look."), tool]
    steps: list[Step] = [
        anthropic.start(),
        anthropic.block_start(type="thinking", thinking="", signature=""),
        anthropic.delta("thinking_delta", thinking="Where?"),
        anthropic.delta("signature_delta", signature="s1"),
        anthropic.block_stop(),
        anthropic.block_start(1),
        anthropic.delta(index=1, text="Let me look."),
        anthropic.block_stop(1),
        anthropic.block_start(2, **(tool | {"input": {}})),
        anthropic.delta("input_json_delta", index=2, partial_json='{"place":"Rome"}'),
        anthropic.block_stop(2),
        *anthropic.stopped("tool_use"),
    ]

    def answer(received: Received) -> Answer:
        if received.json.get("stream"):
            return Events(steps)
        return Json(anthropic.message(*blocks, stop_reason="tool_use"))

    with ScriptedUpstream() as upstream:
        upstream.default = answer
        non_streaming, joined = await _both(Anthropic(upstream.url.removesuffix("/v1"), None, 100))
    assert non_streaming == joined
