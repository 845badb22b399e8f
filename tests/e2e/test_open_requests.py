"""Requests beyond OpenAI's documents over REST: forwarded to open backends, rejected for others, and merged."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.contract import anthropic_api
from tests.processes import Parley, started
from tests.upstream import Json, ScriptedUpstream, completion

CONFIG = """\
backends:
  open: {{kind: openai, base_url: "{url}"}}
  claude: {{kind: anthropic, base_url: "http://{address}", api_key: sk-ant-e2e}}
  local: {{kind: llama_cpp}}
models:
  - id: open
    targets: [{{backend: open}}]
    instructions: "Be brief."
  - {{id: claude, targets: [{{backend: claude}}]}}
  - {{id: local, targets: [{{backend: local}}], defaults: {{max_tokens: 3}}}}
"""
HI = {"role": "user", "content": "hi"}
FUNCTION = {
    "name": "f",
    "parameters": {"type": "object", "properties": {"b": {"maximum": 18446744073709551616}, "a": {}}},
}


@pytest.fixture(scope="module")
def parley(the_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parley]:
    """A `parley up` for this file."""
    file = tmp_path_factory.mktemp("open") / "parley.yaml"
    file.write_text(CONFIG.format(url=the_upstream.url, address=the_upstream.address))
    with started("--config", str(file), "--workers", "1") as parley:
        yield parley


def post(parley: Parley, path: str = "/v1/chat/completions", **body: Any) -> httpx.Response:
    """Sends a JSON body."""
    complete_body = {"model": "open", "messages": [HI]} | body
    return httpx.post(
        parley.http + path, json=complete_body, headers={"Authorization": f"Bearer {parley.key}"}, timeout=60
    )


OPEN: list[dict[str, Any]] = [
    {"tools": [{"type": "web_search", "search_context_size": "low"}]},
    {"tools": [{"type": "builtin_function", "function": {"name": "$web_search"}}], "tool_choice": "auto"},
    {"tools": [{"type": "function", "function": {"name": "files.read:v1", "parameters": {}}}]},
    {"tools": [{"type": "function", "function": FUNCTION, "cache_control": {"type": "ephemeral"}}]},
    {"stop": ["a", "b", "c", "d", "e", "f"]},
    {"response_format": {"type": "grammar", "grammar": "root ::= [0-9]"}},
    {"response_format": {"type": "json_object", "schema": FUNCTION["parameters"]}},
]


@pytest.mark.parametrize("fields", OPEN)
def test_an_open_backend_receives_the_request(
    parley: Parley, upstream: ScriptedUpstream, fields: dict[str, Any]
) -> None:
    """An open backend receives every field unchanged, documented or not."""
    assert 200 == post(parley, **fields, store=False).status_code
    sent = upstream.requests[0].json
    assert fields == {name: sent[name] for name in fields}


@pytest.mark.parametrize(
    ("model", "fields", "param"),
    [
        ("claude", OPEN[0], "tools[0].type"),
        ("claude", OPEN[1], "tools[0].type"),
        ("claude", OPEN[2], "tools[0].function.name"),
        ("claude", OPEN[5], "response_format.type"),
        ("claude", {"messages": [HI | {"foo": 1}]}, "messages[0].foo"),
        ("local", OPEN[0], "tools"),
        ("local", OPEN[5], "response_format.type"),
    ],
)
def test_a_closed_backend_refuses_by_name(
    parley: Parley, upstream: ScriptedUpstream, model: str, fields: dict[str, Any], param: str
) -> None:
    """An unsupported field is rejected by name before a call."""
    answer = post(parley, model=model, **fields)
    assert (400, param) == (answer.status_code, answer.json()["error"]["param"])
    assert [] == upstream.requests


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/openpipe/api/v1/chat/completions"])
@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "none"},
        {"functions": [{"name": "f"}], "function_call": "none"},
    ],
    ids=["tools", "functions"],
)
def test_tools_that_must_not_be_called(parley: Parley, path: str, fields: dict[str, Any]) -> None:
    """With `tool_choice: none`, the built-in model accepts tools although it supports none."""
    for stream in (False, True):
        answer = post(parley, path, model="local", stream=stream, **fields)
        assert 200 == answer.status_code, answer.text


def test_a_function_that_is_a_tool(parley: Parley, upstream: ScriptedUpstream) -> None:
    """A function that equals a tool is offered once; a conflicting definition is rejected."""
    tool = {"type": "function", "function": FUNCTION}
    assert 200 == post(parley, tools=[tool], functions=[FUNCTION]).status_code
    assert [tool] == upstream.requests[0].json["tools"]
    answer = post(parley, tools=[tool], functions=[{"name": "f", "description": "another"}])
    assert (400, "functions[0].name") == (answer.status_code, answer.json()["error"]["param"])


def test_one_system_message_in_a_session(parley: Parley, upstream: ScriptedUpstream) -> None:
    """A session sends one system message, even if the caller's changes, with a resent history or without."""
    first = post(parley, messages=[{"role": "system", "content": "Monday."}, HI]).json()
    message = first["choices"][0]["message"]
    session = first["chatSessionId"]
    new = {"role": "user", "content": "and now?"}
    post(parley, messages=[{"role": "developer", "content": "Tuesday."}, HI, message, new], chatSessionId=session)
    post(parley, messages=[{"role": "user", "content": "last"}], chatSessionId=session)
    sent = [received.json["messages"] for received in upstream.requests]
    assert [["system"]] * 3 == [
        [one["role"] for one in messages if one["role"] in ("system", "developer")] for messages in sent
    ]
    assert ["Be brief.\n\nMonday.", "Be brief.\n\nMonday.\n\nTuesday."] == [
        messages[0]["content"] for messages in sent[:2]
    ]
    assert ["hi", "and now?", "last"] == [one["content"] for one in sent[2] if one["role"] == "user"]


@pytest.mark.parametrize(
    "fields",
    [
        {"content": None, "reasoning_content": "hm"},
        {"content": None, "refusal": "I must not."},
        {"content": ""},
        {"content": None},
    ],
    ids=["reasoning alone", "a refusal", "nothing", "null"],
)
def test_a_resent_answer_without_text(parley: Parley, upstream: ScriptedUpstream, fields: dict[str, Any]) -> None:
    """A resent answer without text is accepted; strict servers get an empty text, and Claude its other content."""
    earlier = {"role": "assistant", **fields}
    for model in ("open", "claude"):
        upstream.answer(
            Json(completion("x")) if model == "open" else Json(anthropic_api.message(anthropic_api.text_block("x")))
        )
        answer = post(parley, model=model, messages=[HI, earlier, HI], store=False)
        assert 200 == answer.status_code, answer.text
    sent = upstream.requests[0].json["messages"][2]
    assert ("assistant", None if "refusal" in fields else "") == (sent["role"], sent["content"])
    assert all(message["content"] for message in upstream.requests[1].json["messages"])


def test_a_session_continues_after_reasoning_alone(parley: Parley, upstream: ScriptedUpstream) -> None:
    """A session continues after an answer that was truncated in its reasoning."""
    cut = completion(None, reasoning_content="hm")
    cut["choices"][0]["finish_reason"] = "length"
    upstream.answer(Json(cut))
    session = post(parley).json()["chatSessionId"]
    assert 200 == post(parley, messages=[HI], chatSessionId=session).status_code
    assert {"role": "assistant", "content": "", "reasoning_content": "hm"} == upstream.requests[1].json["messages"][2]
