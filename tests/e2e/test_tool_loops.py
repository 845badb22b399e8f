"""Tool loops of two turns: the vendor's data is sent back with the tool's result, by sessions and by callers."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests import sse
from tests.contract import anthropic_api
from tests.contract.anthropic_api import streamed
from tests.processes import Parley, started
from tests.upstream import Events, Json, ScriptedUpstream, chunk, completion, ending

CONFIG = """\
backends:
  open: {{kind: openai, base_url: "{url}"}}
  claude: {{kind: anthropic, base_url: "http://{address}", api_key: sk-ant-e2e}}
models:
  - id: open
    targets: [{{backend: open}}]
    instructions: "Be brief."
  - id: claude
    targets: [{{backend: claude}}]
"""
QUESTION = {"role": "user", "content": "Weather?"}
TOOLS = [{"type": "function", "function": {"name": "f"}}]
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"city":"Bern"}'}}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "18 degrees"}
SIGNED = {"google": {"thought_signature": "CsABAVSoXO5T"}}
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "EqQBCgIYAhIM"}
USE = {"type": "tool_use", "id": "c1", "name": "f", "input": {"city": "Bern"}}


@pytest.fixture(scope="module")
def parley(the_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parley]:
    """A `parley up` with two workers."""
    file = tmp_path_factory.mktemp("loops") / "parley.yaml"
    file.write_text(CONFIG.format(url=the_upstream.url, address=the_upstream.address))
    with started("--config", str(file), "--workers", "2") as parley:
        yield parley


def complete(parley: Parley, body: dict[str, Any]) -> dict[str, Any]:
    """Returns the answer of a call, or the list of events of a stream."""
    headers = {"Authorization": f"Bearer {parley.key}"}
    answer = httpx.post(f"{parley.http}/v1/chat/completions", json=body, headers=headers, timeout=30)
    assert 200 == answer.status_code, answer.text
    if not body.get("stream"):
        return dict(answer.json())
    events = sse.chunks(answer.text)
    return {"chatSessionId": events[0]["chatSessionId"], "events": events}


def loop(parley: Parley, model: str, *, stream: bool) -> None:
    """Sends a question, and the tool's result in the session of the first turn."""
    first = complete(parley, {"model": model, "messages": [QUESTION], "tools": TOOLS, "stream": stream})
    session = first["chatSessionId"]
    complete(parley, {"model": model, "messages": [RESULT], "tools": TOOLS, "stream": stream, "chatSessionId": session})


def answer_with(message: dict[str, Any], *, stream: bool) -> Json | Events:
    """Returns an answer in OpenAI's format, complete or in one delta."""
    if not stream:
        return Json(completion(None, **message))
    delta = message | {"tool_calls": [call | {"index": index} for index, call in enumerate(message["tool_calls"])]}
    return Events([chunk({"role": "assistant"}), chunk(delta), *ending("tool_calls")])


def final_answer(*, stream: bool) -> Json | Events:
    """Returns the answer that ends the loop."""
    return Events([chunk({"content": "Sunny."}), *ending()]) if stream else Json(completion("Sunny."))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"tool_calls": [CALL | {"extra_content": SIGNED}]}, {"tool_calls": [CALL | {"extra_content": SIGNED}]}),
        ({"tool_calls": [CALL], "reasoning_content": "hm"}, {"tool_calls": [CALL], "reasoning_content": "hm"}),
        ({"tool_calls": [CALL], "reasoning": "hm"}, {"tool_calls": [CALL], "reasoning": "hm"}),
        (
            {
                "tool_calls": [CALL],
                "reasoning": "hm",
                "reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}],
            },
            {
                "tool_calls": [CALL],
                "reasoning": "hm",
                "reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}],
            },
        ),
    ],
    ids=["Gemini", "DeepSeek", "Groq", "OpenRouter"],
)
def test_session(
    parley: Parley, upstream: ScriptedUpstream, message: dict[str, Any], expected: dict[str, Any], stream: bool
) -> None:
    """The session stores data that the caller does not see, and any worker sends it back unchanged."""
    upstream.answer(answer_with(message, stream=stream), final_answer(stream=stream))
    loop(parley, "open", stream=stream)
    system, question, answer, result = upstream.requests[1].json["messages"]
    assert ("system", QUESTION, RESULT) == (system["role"], question, result)
    assert {"role": "assistant", "content": None} | expected == {"content": None} | answer


@pytest.mark.parametrize("stream", [False, True])
def test_claude(parley: Parley, upstream: ScriptedUpstream, stream: bool) -> None:
    """Claude's thinking is sent back with its signature, before the tool use."""
    if stream:
        last = Events([*anthropic_api.begins(), anthropic_api.delta(text="Sunny."), *anthropic_api.ends()])
        upstream.answer(streamed(THOUGHT, USE), last)
    else:
        upstream.answer(
            anthropic_api.message(THOUGHT, USE, stop_reason="tool_use"),
            anthropic_api.message(anthropic_api.text_block("Sunny.")),
        )
    loop(parley, "claude", stream=stream)
    assert [THOUGHT, USE] == upstream.requests[1].json["messages"][1]["content"]


@pytest.mark.parametrize("model", ["open", "claude"])
def test_caller_resends(parley: Parley, upstream: ScriptedUpstream, model: str) -> None:
    """A caller that resends the received conversation gets the same requests."""
    signed = CALL | {"extra_content": SIGNED}
    if model == "open":
        upstream.answer(
            answer_with({"tool_calls": [signed], "reasoning_content": "hm"}, stream=False), final_answer(stream=False)
        )
    else:
        upstream.answer(
            anthropic_api.message(THOUGHT, USE, stop_reason="tool_use"),
            anthropic_api.message(anthropic_api.text_block("Sunny.")),
        )
    fields: dict[str, Any] = {"model": model, "tools": TOOLS, "store": False}
    answer = complete(parley, fields | {"messages": [QUESTION]})["choices"][0]["message"]
    complete(parley, fields | {"messages": [QUESTION, answer, RESULT]})
    again = upstream.requests[1].json["messages"][-2]
    if model == "open":
        assert ([signed], "hm") == (again["tool_calls"], again["reasoning_content"])
    else:
        assert [THOUGHT, USE] == again["content"]


def test_caching(parley: Parley, upstream: ScriptedUpstream) -> None:
    """`cache_control` of messages, parts and tools reaches Claude, and OpenAI-compatible servers unchanged."""
    cache = {"type": "ephemeral"}
    part = {"type": "text", "text": "Long.", "cache_control": cache}
    system = {"role": "system", "content": [part]}
    tool = TOOLS[0] | {"cache_control": cache}
    fields: dict[str, Any] = {
        "messages": [system, QUESTION | {"cache_control": cache}],
        "tools": [tool],
        "store": False,
    }
    upstream.answer(anthropic_api.message(anthropic_api.text_block("x")), Json(completion("x")))
    for model in ("claude", "open"):
        complete(parley, fields | {"model": model})
    claude, open_ = (received.json for received in upstream.requests)
    text_part = {"type": "text", "text": "Weather?", "cache_control": cache}
    assert ([part], [text_part], cache) == (
        claude["system"],
        claude["messages"][0]["content"],
        claude["tools"][0]["cache_control"],
    )
    brief = {"type": "text", "text": "Be brief."}
    assert [{"role": "system", "content": [brief, part]}, fields["messages"][1]] == open_["messages"]
    assert [tool] == open_["tools"]
