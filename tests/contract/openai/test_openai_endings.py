"""The ends of OpenAI responses, streaming and not: finish reasons, errors and empty answers."""

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
from tests.contract.backends import (
    broken_off,
    call,
    collect,
    failure,
    reasons,
    text,
    words,
)
from tests.contract.openai.answers import both, complete_answer
from tests.upstream import DONE, USAGE, Events, Json, ScriptedUpstream, Step, chunk, chunks, completion, ending

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
        {"code": 429, "message": "slow down", "data": None},
    ],
)
async def test_errors_of_other_shapes(backend: OpenAI, upstream: ScriptedUpstream, body: Any) -> None:
    """The error formats of FastChat, Gemini, MiniMax and SiliconFlow are recognized."""
    upstream.answer(Json(body), Json(body), Events([f"data: {json.dumps(body)}\n\n"]))
    for stream in (False, True, True):
        assert UpstreamRateLimited is type(await failure(backend, call(), stream=stream))


@pytest.mark.parametrize("code", ["InternalError", 50505])
async def test_a_stream_that_ends_with_a_code_and_a_message_is_broken(
    backend: OpenAI, upstream: ScriptedUpstream, code: str | int
) -> None:
    """It is no complete answer, although `[DONE]` follows."""
    upstream.answer(Events([*chunks("a"), {"code": code, "message": "Please try again later."}, DONE]))
    delivered, error = await broken_off(backend, call())
    assert ("a", StreamBroken) == (text(delivered), type(error))


@pytest.mark.parametrize(
    "event", [{"code": 0, "message": "success"}, {"code": 200, "message": "OK"}, {"message": "hello"}]
)
async def test_a_message_without_an_error_code_is_no_error(
    backend: OpenAI, upstream: ScriptedUpstream, event: dict[str, Any]
) -> None:
    """An event without choices that reports success is skipped."""
    upstream.answer(Events([*chunks("a"), event, *chunks("b"), *ending()]))
    assert "ab" == text(await collect(backend, call()))


async def test_a_named_error_that_is_no_json(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """An event named `error` is an error even if its data is not JSON."""
    upstream.answer(Events([*chunks("a"), "event: error\ndata: out of memory\n\n", *ending()]))
    delivered, error = await broken_off(backend, call())
    assert ("a", StreamBroken) == (text(delivered), type(error))
    assert error is not None
    assert "out of memory" in words(error)


EMPTY_ANSWERS: dict[str, list[Step]] = {
    "role, then [DONE]": [chunk({"role": "assistant", "content": ""}), DONE],
    "stop without output": [chunk({"role": "assistant"}), chunk(finish="stop"), DONE],
    "tool_calls without a call": [chunk(finish="tool_calls"), DONE],
    "empty pieces of everything": [chunk({"content": [], "tool_calls": [], "reasoning": "", "audio": {}}), DONE],
    "usage only": [chunk(choices=[], usage=USAGE), DONE],
    "[DONE] only": [DONE],
    "nothing at all": [],
}


@pytest.mark.parametrize("steps", EMPTY_ANSWERS.values(), ids=EMPTY_ANSWERS)
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
