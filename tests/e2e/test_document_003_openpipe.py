"""The API document of the dialect `openpipe`, row by row: the example body, functions and tools, the example answer."""

import json
from typing import Any

import pytest

from tests.e2e.documents import MESSAGES, send, send_fields
from tests.processes import Parley
from tests.upstream import Json, ScriptedUpstream

PATH = "/openpipe/api/v1/chat/completions"
FUNCTION = {"name": "f", "description": "d", "parameters": {}}
LOGPROB = {
    "token": "a",
    "logprob": -0.5,
    "bytes": [97],
    "top_logprobs": [{"token": "a", "logprob": -0.5, "bytes": [97]}],
}


def _answer(message: dict[str, Any], reason: str, **choice: Any) -> Json:
    usage = {"prompt_tokens": 123, "completion_tokens": 123, "total_tokens": 246}
    full = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": reason, **choice}
    return Json({"id": "x", "object": "chat.completion", "created": 1, "choices": [full], "usage": usage})


def _call(**more: Any) -> dict[str, Any]:
    return {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}, **more}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", [{"type": "function", "function": FUNCTION}]),
        ("n", 2),
        ("max_tokens", 123),
        ("temperature", 1.23),
        ("response_format", {"type": "text"}),
    ],
)
def test_body_rows(stack: Parley, upstream: ScriptedUpstream, field: str, value: Any) -> None:
    """Each field of the body reaches the model unchanged."""
    assert 200 == send_fields(stack, PATH, {field: value})[0]
    assert value == upstream.requests[0].json[field]


@pytest.mark.parametrize("offered", [{}, {"tools": [{"type": "function", "function": FUNCTION}]}])
def test_tool_choice_none(stack: Parley, upstream: ScriptedUpstream, offered: dict[str, Any]) -> None:
    """`tool_choice: none` is accepted with and without tools."""
    assert 200 == send_fields(stack, PATH, {"tool_choice": "none", **offered})[0]
    sent = upstream.requests[0].json
    assert "none" == sent.get("tool_choice", "none")
    assert "tool_choice" in sent or "tools" not in sent


def test_max_tokens_may_be_null(stack: Parley, upstream: ScriptedUpstream) -> None:
    """`max_tokens` is a number or null."""
    status, _, _ = send(stack, PATH, {"model": "scripted", "messages": MESSAGES, "max_tokens": None})
    assert (200, False) == (status, "max_tokens" in upstream.requests[0].json)


def test_functions_and_function_call(stack: Parley, upstream: ScriptedUpstream) -> None:
    """`functions` and `function_call`: the model receives tools, and the caller a function call."""
    upstream.answer(_answer({"content": None, "tool_calls": [_call()]}, "tool_calls"))
    status, answer, _ = send_fields(stack, PATH, {"functions": [FUNCTION], "function_call": {"name": "f"}})
    sent = upstream.requests[0].json
    assert [{"type": "function", "function": FUNCTION}] == sent["tools"]
    assert {"type": "function", "function": {"name": "f"}} == sent["tool_choice"]
    message = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}}
    expected = [{"index": 0, "message": message, "finish_reason": "function_call"}]
    assert (200, expected) == (status, answer["choices"])


def test_the_answer_has_tool_calls(stack: Parley, upstream: ScriptedUpstream) -> None:
    """`tool_calls` have id, function and type, as in the example."""
    upstream.answer(_answer({"content": None, "tool_calls": [_call()]}, "tool_calls"))
    _, answer, _ = send_fields(stack, PATH, {"tools": [{"type": "function", "function": FUNCTION}]})
    assert [_call()] == answer["choices"][0]["message"]["tool_calls"]


@pytest.mark.parametrize("reason", ["length", "stop", "content_filter"])
def test_finish_reasons(stack: Parley, upstream: ScriptedUpstream, reason: str) -> None:
    """`finish_reason` is that of the model."""
    upstream.answer(_answer({"content": "x"}, reason))
    assert reason == send_fields(stack, PATH, {})[1]["choices"][0]["finish_reason"]


def test_the_answer_has_logprobs(stack: Parley, upstream: ScriptedUpstream) -> None:
    """`logprobs` have token, bytes, logprob and top_logprobs of each token."""
    upstream.answer(_answer({"content": "a"}, "stop", logprobs={"content": [LOGPROB]}))
    _, answer, _ = send_fields(stack, PATH, {"logprobs": True, "top_logprobs": 1})
    assert {"content": [LOGPROB]} == answer["choices"][0]["logprobs"]


def test_required_answer_fields(stack: Parley, upstream: ScriptedUpstream) -> None:
    """`id`, `object`, `created`, `model`, `choices` and `usage` are in every answer."""
    _, answer, _ = send_fields(stack, PATH, {})
    assert {"id", "object", "created", "model", "choices", "usage"} <= answer.keys()
    assert "chat.completion" == answer["object"]


def test_errors_are_as_openais(stack: Parley) -> None:
    """An error has message, type, param and code."""
    status, answer, _ = send_fields(stack, PATH, {"model": "nosuch"})
    error = {
        "message": 'Unknown model "nosuch"',
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }
    assert (404, {"error": error}) == (status, answer)
    assert 401 == send_fields(stack, PATH, {}, {"Authorization": None})[0]
    assert 400 == send(stack, PATH, json.dumps([1]).encode())[0]
