"""Sessions through the edge: continued, kept over a restart, and sent to the model message by message."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.processes import Parley, started
from tests.upstream import ScriptedUpstream, completion

PATH = "/api/v1/chat/completions"


def _body(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "scripted", "messages": [{"role": "user", "content": text}], **more}


def _sent(upstream: ScriptedUpstream) -> list[list[tuple[str, str]]]:
    return [[(m["role"], m["content"]) for m in request.json["messages"]] for request in upstream.requests]


def _say(stack: Parley, body: dict[str, Any], **headers: str) -> tuple[int, dict[str, str], Any]:
    with stack.connection() as connection:
        connection.request("POST", PATH, json.dumps(body), stack.headers() | headers)
        response = connection.getresponse()
        names = {name.lower(): value for name, value in response.getheaders()}
        return response.status, names, json.loads(response.read())


@pytest.mark.parametrize("name", ["chatSessionId", "session_id", "X-Chat-Session-ID"])
def test_a_session_is_continued_by_each_of_its_names(stack: Parley, upstream: ScriptedUpstream, name: str) -> None:
    """Body or header: the model is sent the first call's messages, its answer, and the new message."""
    upstream.answer(completion("Hello Ada"))
    _, headers, first = _say(stack, _body("My name is Ada."))
    session = first["chatSessionId"]
    assert session == headers["x-chat-session-id"]
    if name.startswith("X-"):
        _, _, second = _say(stack, _body("What is my name?"), **{name: session})
    else:
        _, _, second = _say(stack, _body("What is my name?", **{name: session}))
    assert session == second["chatSessionId"]
    conversation = [("user", "My name is Ada."), ("assistant", "Hello Ada"), ("user", "What is my name?")]
    assert [conversation[:1], conversation] == _sent(upstream)


def test_the_embedded_model_remembers(stack: Parley) -> None:
    """A question that means nothing by itself is answered, because the session has the one before."""
    body = {"model": "smollm2", "messages": [{"role": "user", "content": "What is the capital of France?"}]}
    _, first = stack.request("POST", PATH, body)
    body["messages"] = [{"role": "user", "content": "And of Germany?"}]
    _, second = stack.request("POST", PATH, body | {"chatSessionId": first["chatSessionId"]})
    assert "Berlin" in second["choices"][0]["message"]["content"]


def test_sessions_survive_a_restart(scripted_config: Path, upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """What was acknowledged is there after everything was stopped and started again."""
    upstream.answer(completion("Hello Ada"), completion("Ada"))
    with started("--config", str(scripted_config), folder=tmp_path) as before:
        key = before.key
        session = before.request("POST", PATH, _body("My name is Ada."))[1]["chatSessionId"]
    with started("--config", str(scripted_config), folder=tmp_path) as after:
        status, _ = after.request("POST", PATH, _body("What is my name?", chatSessionId=session), key)
        assert 200 == status
        _, listed = after.request("GET", f"/api/v1/sessions/{session}/messages", key=key)
    assert [("user", "My name is Ada."), ("assistant", "Hello Ada"), ("user", "What is my name?")] == _sent(upstream)[1]
    assert [(1, "completed"), (1, "completed"), (2, "completed"), (2, "completed")] == [
        (message["turn"], message["state"]) for message in listed["messages"]
    ]


def test_sessions_are_read_and_deleted_over_rest(stack: Parley, upstream: ScriptedUpstream) -> None:
    """List, get, messages, delete; then 404 in the words of an unknown one."""
    session = _say(stack, _body("Hi"))[2]["chatSessionId"]
    status, listed = stack.request("GET", "/api/v1/sessions?page_size=1&model=scripted")
    assert (200, [session]) == (status, [item["id"] for item in listed["sessions"]])
    assert "next_page_token" in listed or len(listed["sessions"]) < 2
    status, one = stack.request("GET", f"/api/v1/sessions/{session}")
    assert (200, session, 1) == (status, one["id"], one["turn_count"])
    status, deleted = stack.request("DELETE", f"/api/v1/sessions/{session}")
    assert {"id": session, "object": "chat.session.deleted", "deleted": True} == deleted
    unknown = (404, {"error": f'Unknown session "{session}"'})
    assert unknown == stack.request("GET", f"/api/v1/sessions/{session}")
    assert unknown == stack.request("POST", PATH, _body("Hi", chatSessionId=session))
