"""OpenAI's Python package with a scripted Anthropic upstream, through all of Parley."""

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.contract.anthropic_api import (
    begins,
    block_start,
    block_stop,
    delta,
    ends,
    error,
    message,
    start,
    stopped,
    text_block,
)
from tests.processes import Parley, started
from tests.upstream import Cut, Events, Gate, Json, ScriptedUpstream

CONFIG = """\
backends:
  claude: {{kind: anthropic, base_url: "http://{address}", api_key: sk-ant-e2e, max_tokens: 1234}}
models:
  - id: claude
    targets: [{{backend: claude, model: claude-scripted-1}}]
    instructions: "Be brief."
    fallbacks: [reserve]
    whole_answers: whole
  - id: reserve
    targets: [{{backend: claude, model: claude-scripted-2}}]
"""
TEXT = [{"type": "text", "text": "Hello!"}]
REQUEST: Any = {"model": "claude", "messages": [{"role": "user", "content": "Hello!"}]}
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"unit": {"enum": ["celsius"]}, "city": {"type": "string"}}},
    },
}


@pytest.fixture(scope="module")
def claude(the_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parley]:
    """A `parley up` whose only upstream is Anthropic."""
    file = tmp_path_factory.mktemp("claude") / "parley.yaml"
    file.write_text(CONFIG.format(address=the_upstream.address))
    with started("--config", str(file), "--workers", "1") as parley:
        yield parley


@pytest.fixture
def client(claude: Parley) -> Iterator[openai.OpenAI]:
    """The package's client with another base URL."""
    with openai.OpenAI(base_url=f"{claude.http}/v1", api_key=claude.key, max_retries=0) as client:
        yield client


class Solution(BaseModel):
    """A solution. The order of its fields is meant."""

    steps: list[str]
    answer: int


def test_complete_answer(client: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    """An answer of Anthropic has OpenAI's format, and its request has Anthropic's."""
    upstream.answer(message(text_block("Hi.")))
    answer = client.chat.completions.create(**REQUEST)
    assert ("Hi.", "stop") == (answer.choices[0].message.content, answer.choices[0].finish_reason)
    assert answer.usage is not None
    assert (9, 3) == (answer.usage.prompt_tokens, answer.usage.completion_tokens)
    assert {
        "model": "claude-scripted-1",
        "max_tokens": 1234,
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": [{"role": "user", "content": TEXT}],
    } == upstream.requests[0].json
    assert "sk-ant-e2e" == upstream.requests[0].headers["x-api-key"]


def test_tool_round_in_a_session(client: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    """After a streamed tool call, a session sends Anthropic the complete tool exchange."""
    upstream.answer(
        Events(
            [
                start(),
                block_start(0, type="tool_use", id="toolu_1", name="get_weather", input={}),
                delta("input_json_delta", 0, partial_json='{"city":'),
                delta("input_json_delta", 0, partial_json='"Bern"}'),
                block_stop(0),
                *stopped("tool_use"),
            ]
        ),
        message(text_block("Sunny.")),
    )
    session = ""
    with client.chat.completions.stream(**REQUEST, tools=[WEATHER]) as stream:
        for event in stream:
            if event.type == "chunk":
                session = (event.chunk.model_extra or {}).get("chatSessionId", session)
        call = stream.get_final_completion().choices[0].message.tool_calls
    assert call is not None
    assert ("toolu_1", '{"city":"Bern"}') == (call[0].id, call[0].function.arguments)
    result: Any = {"role": "tool", "tool_call_id": "toolu_1", "content": "18 degrees"}
    more = {"chatSessionId": session}
    answer = client.chat.completions.create(model="claude", messages=[result], tools=[WEATHER], extra_body=more)
    assert "Sunny." == answer.choices[0].message.content
    use = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Bern"}}
    reported = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "18 degrees"}]}
    sent = upstream.requests[1].json
    assert [
        {"role": "user", "content": TEXT},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [reported]},
    ] == sent["messages"]
    expected = {"name": "get_weather", "input_schema": WEATHER["function"]["parameters"]}
    assert [json.dumps(expected)] == [json.dumps(tool) for tool in sent["tools"]]


def test_structured_output(client: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    """The schema that OpenAI's package derives from a class reaches Anthropic as output schema, keys in order."""
    upstream.answer(message(text_block('{"steps": ["a"], "answer": 42}')))
    parsed = client.chat.completions.parse(**REQUEST, response_format=Solution).choices[0].message.parsed
    assert Solution(steps=["a"], answer=42) == parsed
    sent = upstream.requests[0].json["output_config"]["format"]
    assert ("json_schema", ["steps", "answer"]) == (sent["type"], list(sent["schema"]["properties"]))


def test_broken_stream_is_continued(client: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    """A broken stream is continued by prefill; the caller gets the complete answer and the total usage."""
    gate = Gate()
    rest = [start(), block_start(), delta(text=" world."), *ends()]
    upstream.answer(Events([*begins(), delta(text="Hello"), gate, Cut()]), Events(rest))
    pieces: list[str] = []
    usage = None
    for chunk in client.chat.completions.create(**REQUEST, stream=True, stream_options={"include_usage": True}):
        pieces += [choice.delta.content or "" for choice in chunk.choices]
        usage = chunk.usage or usage
        if "Hello" in pieces:
            gate.set()
    assert "Hello world." == "".join(pieces)
    started = {"role": "assistant", "content": [{"type": "text", "text": "Hello"}]}
    assert started == upstream.requests[1].json["messages"][-1]
    assert usage is not None
    assert 18 == usage.prompt_tokens


def test_too_long(client: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    """The error for a conversation over the context has Anthropic's message and OpenAI's code."""
    message = "prompt is too long: 210000 tokens > 200000 maximum"
    upstream.default = lambda _: Json(error("invalid_request_error", message), 400)
    with pytest.raises(openai.BadRequestError, match=message) as caught:
        client.chat.completions.create(**REQUEST)
    assert "context_length_exceeded" == caught.value.code


def test_unsupported(client: openai.OpenAI, upstream: ScriptedUpstream) -> None:
    """A parameter that Anthropic does not support is rejected by name before a call."""
    with pytest.raises(openai.BadRequestError, match="`seed` is not supported by the model") as caught:
        client.chat.completions.create(**REQUEST, seed=1)
    assert "seed" == caught.value.param
    assert [] == upstream.requests
