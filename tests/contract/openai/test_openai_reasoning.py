"""Reasoning of earlier turns: field names, and servers that reject or require it."""

import json
from pathlib import Path
from typing import Any

import pytest

from parley.backends.openai.backend import OpenAI
from parley.backends.openai.learned_fields import LearnedFields
from parley.backends.openai.reasoning import ANY, rule_for
from parley.config import ReasoningRule
from parley.core.errors import UpstreamRejected
from tests.contract.backends import KEY, QUESTION, call, collect
from tests.upstream import Events, Json, ScriptedUpstream, chunk, completion, ending

USER = QUESTION["messages"][0]
CALLS = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
GROQ = (
    "'messages.1' : for 'role:assistant' the following must be satisfied[('messages.1' : property '{}' is unsupported)]"
)
CEREBRAS = "messages.1.assistant.{0}: property 'messages.1.assistant.{0}' is unsupported"
DEEPSEEK = "The `reasoning_content` in the thinking mode must be passed back to the API."
KIMI = "thinking is enabled but reasoning_content is missing in assistant tool call message at index 1"


def conversation(**fields: Any) -> dict[str, Any]:
    """Creates a conversation with this assistant message."""
    answer = {"role": "assistant", "content": "a", **fields}
    return {"messages": [USER, answer, {"role": "user", "content": "go on"}]}


def rejection(message: str, status: int = 400) -> Json:
    """Scripts a rejection with this message."""
    return Json({"error": {"message": message, "type": "invalid_request_error", "code": "wrong_api_format"}}, status)


async def sent_message(backend: OpenAI, upstream: ScriptedUpstream, **fields: Any) -> Any:
    """Returns the assistant message that the upstream receives."""
    await backend.complete(call(**conversation(**fields)))
    return upstream.requests[-1].json["messages"][1]


REASONING = {"reasoning_content": "hm", "extra_json": '{"reasoning_details":[{"n":1}]}'}
DETAILS = {"reasoning_details": [{"n": 1}]}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (ANY, {"reasoning_content": "hm"} | DETAILS),
        (ReasoningRule("reasoning"), {"reasoning": "hm"} | DETAILS),
        (ReasoningRule("reasoning", details=frozenset()), {"reasoning": "hm"}),
        (ReasoningRule("reasoning_content", "require", frozenset()), {"reasoning_content": "hm"}),
        (ReasoningRule(history="omit"), {}),
        (rule_for("https://api.groq.com/openai/v1"), {"reasoning": "hm"}),
        (rule_for("https://api.cerebras.ai/v1"), {"reasoning": "hm"}),
        (rule_for("https://openrouter.ai/api/v1"), {"reasoning": "hm"} | DETAILS),
        (rule_for("https://api.deepseek.com"), {"reasoning_content": "hm"}),
        (rule_for("https://api.moonshot.ai/v1"), {"reasoning_content": "hm"}),
        (rule_for("https://api.mistral.ai/v1"), {}),
        (rule_for("https://me.openai.azure.com/openai"), {}),
        (rule_for("https://api.openai.com/v1"), {}),
        (rule_for("https://notapi.openai.com.example.com/v1"), {"reasoning_content": "hm"} | DETAILS),
    ],
)
async def test_rules_of_known_hosts(upstream: ScriptedUpstream, rule: ReasoningRule, expected: dict[str, Any]) -> None:
    """Each server receives reasoning under its own name, and no unsupported reasoning field."""
    backend = OpenAI(upstream.url, KEY, reasoning=rule)
    assert {"role": "assistant", "content": "a"} | expected == await sent_message(backend, upstream, **REASONING)
    await backend.close()


async def test_either_name_is_accepted_from_callers(upstream: ScriptedUpstream) -> None:
    """The text is sent once, under the server's name, whichever name the caller used."""
    for field, given in (("reasoning_content", "reasoning"), ("reasoning", "reasoning")):
        backend = OpenAI(upstream.url, KEY, reasoning=ReasoningRule(field))  # type: ignore[arg-type]
        found = await sent_message(backend, upstream, extra_json=f'{{"{given}":"hm"}}')
        assert {"role": "assistant", "content": "a", field: "hm"} == found
        await backend.close()


async def test_required_reasoning(upstream: ScriptedUpstream) -> None:
    """If reasoning is required, messages without it get a placeholder, but only in conversations with reasoning."""
    backend = OpenAI(upstream.url, KEY, reasoning=ReasoningRule("reasoning_content", "require"))
    assert {"role": "assistant", "content": "a"} == await sent_message(backend, upstream)
    found = await sent_message(backend, upstream, tool_calls=CALLS)
    assert " " == found["reasoning_content"]
    assert " " == (await sent_message(backend, upstream, tool_calls=CALLS, reasoning_content=""))["reasoning_content"]
    await backend.close()


@pytest.mark.parametrize(
    "message", [GROQ, CEREBRAS, "{}: Extra inputs are not permitted", "Unknown parameter: 'messages[1].{}'"]
)
@pytest.mark.parametrize("is_stream", [False, True])
async def test_rejected_field(backend: OpenAI, upstream: ScriptedUpstream, message: str, is_stream: bool) -> None:
    """A call is retried without the field that the error names; later calls omit it from the start."""
    for _ in range(2):
        upstream.answer(rejection(message.format("reasoning_content"))) if not upstream.requests else None
        upstream_call = call(**conversation(**REASONING))
        assert await collect(backend, upstream_call) if is_stream else await backend.complete(upstream_call)
    expected = {"role": "assistant", "content": "a"} | DETAILS
    first, *others = [received.json["messages"][1] for received in upstream.requests]
    assert ("hm", [expected, expected]) == (first["reasoning_content"], others)


async def test_other_rejections(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """Other rejections are returned without a retry; fields that were not sent are not learned."""
    for message in (GROQ.format("foo"), "temperature is not supported", GROQ.format("reasoning")):
        upstream.answer(rejection(message))
        with pytest.raises(UpstreamRejected):
            await backend.complete(call(**conversation(**REASONING)))
    assert 3 == len(upstream.requests)


async def test_second_rejection(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """A call is retried once; the next call starts from what was learned."""
    upstream.answer(rejection(GROQ.format("reasoning_content")), rejection(GROQ.format("reasoning_details")))
    with pytest.raises(UpstreamRejected):
        await backend.complete(call(**conversation(**REASONING)))
    assert {"role": "assistant", "content": "a"} | DETAILS == upstream.requests[1].json["messages"][1]


@pytest.mark.parametrize("message", [DEEPSEEK, KIMI])
async def test_learned_requirement(backend: OpenAI, upstream: ScriptedUpstream, message: str) -> None:
    """A call is retried with a placeholder in every message without reasoning."""
    upstream.answer(rejection(message))
    await backend.complete(call(**conversation(tool_calls=CALLS)))
    assert [None, " "] == [received.json["messages"][1].get("reasoning_content") for received in upstream.requests]


@pytest.mark.parametrize(
    "message",
    [CEREBRAS.format("refusal"), "messages.1.content: Input should be a valid string", "'content' is required"],
)
async def test_rejected_refusal_field(backend: OpenAI, upstream: ScriptedUpstream, message: str) -> None:
    """A rejected `refusal` is moved to `content`, also if the server requires `content` with it."""
    upstream.answer(rejection(message))
    await backend.complete(call(**conversation(content=None, refusal="no")))
    assert {"role": "assistant", "content": "no"} == upstream.requests[1].json["messages"][1]


async def test_rules_per_model(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """Fields are learned for each model, because Groq rejects reasoning for some models only."""
    upstream.answer(rejection(GROQ.format("reasoning_content")))
    await backend.complete(call(**conversation(**REASONING)))
    other = call(**conversation(**REASONING))
    await backend.complete(type(other)(other.request, "target-2", other.timeouts))
    assert "hm" == upstream.requests[2].json["messages"][1]["reasoning_content"]


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
async def test_learned_name(backend: OpenAI, upstream: ScriptedUpstream, field: str, is_stream: bool) -> None:
    """Reasoning is sent under the name in the server's responses."""
    delivered = [{field: "h"}, {field: "m", "content": "a"}]
    if is_stream:
        upstream.answer(Events([*(chunk(delta) for delta in delivered), *ending()]))
        chunks = await collect(backend, call())
        found = "".join(choice.delta.reasoning_content for one in chunks for choice in one.choices)
    else:
        upstream.answer(completion("a", **{field: "hm"}))
        found = (await backend.complete(call())).choices[0].message.reasoning_content
    assert "hm" == found
    assert {"role": "assistant", "content": "a", field: "hm"} == await sent_message(
        backend, upstream, reasoning_content="hm"
    )


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        (
            [
                {"type": "reasoning.text", "text": "h", "format": "anthropic-claude-v1", "index": 0},
                {"type": "reasoning.text", "text": "m", "format": "anthropic-claude-v1", "index": 0},
                {"type": "reasoning.text", "signature": "Eq", "index": 0},
                {"type": "reasoning.encrypted", "data": "x", "index": 1},
                {"type": "reasoning.encrypted", "data": "y", "index": 1},
            ],
            [
                {
                    "type": "reasoning.text",
                    "text": "hm",
                    "format": "anthropic-claude-v1",
                    "index": 0,
                    "signature": "Eq",
                },
                {"type": "reasoning.encrypted", "data": "x", "index": 1},
                {"type": "reasoning.encrypted", "data": "y", "index": 1},
            ],
        ),
        (
            [
                {"type": "reasoning.summary", "summary": "h", "index": 0},
                {"type": "reasoning.summary", "summary": "m", "index": 0},
            ],
            [{"type": "reasoning.summary", "summary": "hm", "index": 0}],
        ),
        ([{"type": "reasoning.text", "text": "h"}, {"type": "reasoning.text", "text": "m"}], None),
        (
            [{"type": "reasoning.text", "text": "h", "index": 0}, {"type": "reasoning.text", "text": "m", "index": 1}],
            None,
        ),
        ({"odd": 1}, None),
        ([1, "x"], None),
        ([], None),
    ],
)
async def test_streamed_details_are_merged(
    backend: OpenAI, upstream: ScriptedUpstream, details: Any, expected: Any
) -> None:
    """Streamed fragments of details are sent back merged; other data is unchanged."""
    found = await sent_message(backend, upstream, extra_json=json.dumps({"reasoning_details": details}))
    assert (details if expected is None else expected) == found["reasoning_details"]


async def test_reasoning_in_details_only(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """A server that sends only details (MiniMax) receives no other reasoning field."""
    details = [{"type": "reasoning.text", "text": "hm"}]
    upstream.answer(completion("a", reasoning_details=details))
    message = (await backend.complete(call())).choices[0].message
    assert "hm" == message.reasoning_content
    delivered = {"reasoning_content": "hm", "extra_json": message.extra_json}
    assert {"role": "assistant", "content": "a", "reasoning_details": details} == await sent_message(
        backend, upstream, **delivered
    )
    assert "hm" == (await sent_message(backend, upstream, reasoning_content="hm"))["reasoning_content"]


async def test_changed_name(backend: OpenAI, upstream: ScriptedUpstream) -> None:
    """The name in the latest response is used, because vLLM changed its name."""
    for field in ("reasoning_content", "reasoning"):
        upstream.answer(completion("a", **{field: "hm"}))
        await backend.complete(call())
        assert field in await sent_message(backend, upstream, reasoning_content="hm")


async def test_workers_share_learned_fields(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """Workers share learned fields in a file; a corrupt file is replaced."""
    file = tmp_path / "fields.json"
    first, second = (OpenAI(upstream.url, KEY, learned=LearnedFields(file)) for _ in range(2))
    upstream.answer(rejection(GROQ.format("reasoning_content")))
    await first.complete(call(**conversation(**REASONING)))
    assert {"role": "assistant", "content": "a"} | DETAILS == await sent_message(second, upstream, **REASONING)
    file.write_text("spoilt")
    await sent_message(second, upstream, **REASONING)
    await first.close()
    await second.close()
