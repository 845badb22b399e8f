"""Histories that SDKs and frameworks rewrite and resend to a session, with the `openai` package."""

import json
from collections.abc import Callable
from typing import Any

import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from tests.e2e import vendor
from tests.processes import Parley
from tests.upstream import ScriptedUpstream

QUESTION = "Is it warm in Paris?"
ARGUMENTS = '{"city": "Paris", "at": {"lat": 48.0, "id": 18446744073709551615}, "unit": "C"}'
FOUND = '{"degrees": 20, "sky": "clear"}'
ANSWER = "  It is 20 degrees in Paris.\n"
Rewrite = Callable[[dict[str, Any]], dict[str, Any]]


def _unchanged(message: dict[str, Any]) -> dict[str, Any]:
    return message


def _ai_sdk(message: dict[str, Any]) -> dict[str, Any]:
    """Rewrites messages like `@ai-sdk/openai-compatible`: JSON.stringify, trimmed text, no null content."""
    calls = [_with_arguments(call, _stringified) for call in message.get("tool_calls") or ()]
    content = (message["content"] or "").strip()
    return {**_kept(message), "content": content, **({"tool_calls": calls} if calls else {})}


def _langchain(message: dict[str, Any]) -> dict[str, Any]:
    """Rewrites messages like `ChatOpenAI`: arguments by json.dumps, and a name."""
    calls = [
        _with_arguments(call, lambda text: json.dumps(json.loads(text))) for call in message.get("tool_calls") or ()
    ]
    named = {"name": "assistant-1"} if message["role"] == "assistant" else {}
    return {**_kept(message), **named, "content": message["content"], **({"tool_calls": calls} if calls else {})}


def _llama_index(message: dict[str, Any]) -> dict[str, Any]:
    """Rewrites messages like LlamaIndex: null for the assistant's empty text, calls unchanged but without a type."""
    calls = [{"id": call["id"], "function": call["function"]} for call in message.get("tool_calls") or ()]
    typed = [{**call, "type": "function"} for call in calls]
    return {**_kept(message), "content": message["content"] or None, **({"tool_calls": typed} if typed else {})}


def _agents_sdk(message: dict[str, Any]) -> dict[str, Any]:
    """Rewrites messages like the OpenAI Agents SDK: user text in a part, calls without content, other key order."""
    if message["role"] == "user":
        return {**message, "content": [{"type": "text", "text": message["content"]}]}
    calls = list(reversed(message.get("tool_calls") or []))
    content = {"content": message["content"]} if message["content"] else {}
    return {**_kept(message), **content, **({"tool_calls": calls} if calls else {})}


def _kept(message: dict[str, Any]) -> dict[str, Any]:
    return {name: message[name] for name in ("role", "tool_call_id") if name in message}


def _with_arguments(call: dict[str, Any], rewrite: Callable[[str], str]) -> dict[str, Any]:
    function = {**call["function"], "arguments": rewrite(call["function"]["arguments"])}
    return {"id": call["id"], "type": "function", "function": function}


def _stringified(text: str) -> str:
    """Serializes arguments like JavaScript: no spaces, no fraction of a whole number, integers as doubles."""
    value = json.loads(text)
    value["at"] = {"lat": 48, "id": 18446744073709552000}
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _script(upstream: ScriptedUpstream) -> list[dict[str, Any]]:
    """Scripts two tool calls and then two texts; returns the calls."""
    calls = [
        {"id": f"call_{number}", "type": "function", "function": {"name": "get_weather", "arguments": ARGUMENTS}}
        for number in (1, 2)
    ]
    upstream.answer(
        vendor.complete_answer(vendor.choice(None, tool_calls=calls)),
        vendor.complete_answer(vendor.choice(ANSWER)),
        vendor.complete_answer(),
    )
    return calls


@pytest.mark.parametrize("rewrite", [_unchanged, _ai_sdk, _langchain, _llama_index, _agents_sdk])
def test_a_rewritten_history_is_sent_once(client: openai.OpenAI, upstream: ScriptedUpstream, rewrite: Rewrite) -> None:
    """A question, two tool calls, their results and another question are each sent to the model once, unchanged."""
    calls = _script(upstream)
    create: Any = client.chat.completions.create
    messages: list[dict[str, Any]] = [{"role": "user", "content": QUESTION}]
    session: dict[str, str] = {}
    for number in range(3):
        answer = create(model="scripted", messages=list(map(rewrite, messages)), extra_headers=session)
        session = {"x-chat-session-id": answer.chatSessionId}
        messages.append(answer.choices[0].message.model_dump(exclude_none=number == 1) | {"role": "assistant"})
        messages[-1].setdefault("content", None)
        if number == 0:
            messages += [{"role": "tool", "tool_call_id": call["id"], "content": FOUND} for call in calls]
        else:
            messages.append({"role": "user", "content": "And in Rome?"})
    sent = upstream.requests[2].json["messages"]
    assert ["user", "assistant", "tool", "tool", "assistant", "user"] == [message["role"] for message in sent]
    assert [ARGUMENTS] * 2 == [call["function"]["arguments"] for call in sent[1]["tool_calls"]]
    assert ANSWER == sent[4]["content"]
    assert [1, 4, 6] == [len(request.json["messages"]) for request in upstream.requests]


def test_langchain(stack: Parley, upstream: ScriptedUpstream) -> None:
    """LangChain's model parses and serializes every message again, and its session continues."""
    calls = _script(upstream)
    chat = ChatOpenAI(base_url=f"{stack.http}/v1", api_key=SecretStr(stack.key), model="scripted", max_retries=0)
    first = chat.invoke([HumanMessage(QUESTION)])
    session = _session(stack)
    in_session = chat.bind(extra_headers={"x-chat-session-id": session})
    assert isinstance(first, AIMessage)
    history: list[Any] = [HumanMessage(QUESTION, name="ada"), first]
    history += [ToolMessage(FOUND, tool_call_id=call["id"], name="get_weather") for call in calls]
    history += [in_session.invoke(history), HumanMessage("And in Rome?")]
    in_session.invoke(history)
    assert [1, 4, 6] == [len(request.json["messages"]) for request in upstream.requests]


def _session(stack: Parley) -> str:
    _, listed = stack.request("GET", "/api/v1/sessions?page_size=1")
    return str(listed["sessions"][0]["id"])


@pytest.mark.parametrize(
    ("resent", "index"),
    [
        ([("user", "edited"), ("assistant", "Hello! How can I assist you today?"), ("user", "two")], 0),
        ([("user", "one"), ("assistant", "edited"), ("user", "two")], 1),
        ([("system", "new"), ("user", "one"), ("assistant", "edited"), ("user", "two")], 2),
    ],
)
def test_a_history_that_contradicts_the_session_is_rejected(
    client: openai.OpenAI, upstream: ScriptedUpstream, resent: list[tuple[str, str]], index: int
) -> None:
    """The error names the message and the remedy; the upstream is not called, and the session continues."""
    upstream.default = vendor.complete_answer()
    create: Any = client.chat.completions.create
    session = create(model="scripted", messages=[{"role": "user", "content": "one"}]).chatSessionId
    named = {"x-chat-session-id": session}
    messages = [{"role": role, "content": text} for role, text in resent]
    with pytest.raises(openai.BadRequestError) as rejected:
        create(model="scripted", messages=messages, extra_headers=named)
    assert f"messages[{index}]" == rejected.value.param
    for hint in (f"`messages[{index}]`", "send only what is new", "fork"):
        assert hint in rejected.value.message
    assert 1 == len(upstream.requests)
    for _ in range(2):
        create(model="scripted", messages=[{"role": "user", "content": "yes"}], extra_headers=named)
    sent = [message["content"] for message in upstream.requests[-1].json["messages"] if message["role"] == "user"]
    assert ["one", "yes", "yes"] == sent
