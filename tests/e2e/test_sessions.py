"""Sessions through the edge: continued, stored over a restart, and sent to the model message by message."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.processes import Parley, started
from tests.upstream import Gate, Json, ScriptedUpstream, completion

PATH = "/api/v1/chat/completions"


def _body(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "scripted", "messages": [{"role": "user", "content": text}], **more}


def _sent(upstream: ScriptedUpstream) -> list[list[tuple[str, str]]]:
    return [[(m["role"], m["content"]) for m in request.json["messages"]] for request in upstream.requests]


def _post(stack: Parley, body: dict[str, Any], **headers: str) -> tuple[int, dict[str, str], Any]:
    with stack.connection() as connection:
        connection.request("POST", PATH, json.dumps(body), stack.headers() | headers)
        response = connection.getresponse()
        names = {name.lower(): value for name, value in response.getheaders()}
        return response.status, names, json.loads(response.read())


@pytest.mark.parametrize("name", ["chatSessionId", "session_id", "X-Chat-Session-ID"])
def test_a_session_is_continued_by_each_of_its_names(stack: Parley, upstream: ScriptedUpstream, name: str) -> None:
    """With the session in body or header, the model gets the first call's messages, its answer, and the new message."""
    upstream.answer(completion("Hello Ada"))
    _, headers, first = _post(stack, _body("My name is Ada."))
    session = first["chatSessionId"]
    assert session == headers["x-chat-session-id"]
    if name.startswith("X-"):
        _, _, second = _post(stack, _body("What is my name?"), **{name: session})
    else:
        _, _, second = _post(stack, _body("What is my name?", **{name: session}))
    assert session == second["chatSessionId"]
    conversation = [("user", "My name is Ada."), ("assistant", "Hello Ada"), ("user", "What is my name?")]
    assert [conversation[:1], conversation] == _sent(upstream)


def test_the_embedded_model_uses_the_history(stack: Parley) -> None:
    """A question that depends on the previous one is answered, because the session contains it."""
    body = {"model": "smollm2", "messages": [{"role": "user", "content": "What is the capital of France?"}]}
    _, first = stack.request("POST", PATH, body)
    body["messages"] = [{"role": "user", "content": "And of Germany?"}]
    _, second = stack.request("POST", PATH, body | {"chatSessionId": first["chatSessionId"]})
    assert "Berlin" in second["choices"][0]["message"]["content"]


def test_sessions_survive_a_restart(scripted_config: Path, upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """Acknowledged turns are stored after a stop and a start of all processes."""
    upstream.answer(completion("Hello Ada"), completion("Ada"))
    with started("--config", str(scripted_config), folder=tmp_path) as before:
        key = before.key
        session = before.request("POST", PATH, _body("My name is Ada."))[1]["chatSessionId"]
        before.stop()
    with started("--config", str(scripted_config), folder=tmp_path) as after:
        status, _ = after.request("POST", PATH, _body("What is my name?", chatSessionId=session), key)
        assert 200 == status
        _, listed = after.request("GET", f"/api/v1/sessions/{session}/messages", key=key)
    assert [("user", "My name is Ada."), ("assistant", "Hello Ada"), ("user", "What is my name?")] == _sent(upstream)[1]
    assert [(1, "completed"), (1, "completed"), (2, "completed"), (2, "completed")] == [
        (message["turn"], message["state"]) for message in listed["messages"]
    ]


def test_sessions_are_read_and_deleted_over_rest(stack: Parley, upstream: ScriptedUpstream) -> None:
    """A session is listed, read and deleted over REST; then it is a 404 like an unknown one."""
    session = _post(stack, _body("Hi"))[2]["chatSessionId"]
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


def test_a_fork_and_its_origin_are_independent(stack: Parley, upstream: ScriptedUpstream) -> None:
    """A fork and its origin each send their own turns; a fork of the first turn lacks the second."""
    origin = _post(stack, _body("one"))[2]["chatSessionId"]
    _post(stack, _body("two", chatSessionId=origin))
    status, fork = stack.request("POST", f"/api/v1/sessions/{origin}/fork", {"through_turn": 1})
    assert (200, origin, 1) == (status, fork["forked_from"], fork["turn_count"])
    _post(stack, _body("elsewhere", chatSessionId=fork["id"]))
    _post(stack, _body("three", chatSessionId=origin))
    questions = [[text for role, text in sent if role == "user"] for sent in _sent(upstream)]
    assert [["one", "elsewhere"], ["one", "two", "three"]] == questions[2:]
    assert (404, {"error": 'Unknown session "nope"'}) == stack.request("POST", "/api/v1/sessions/nope/fork")


def test_an_export_equals_the_messages(stack: Parley, upstream: ScriptedUpstream) -> None:
    """An export has a line for each message, with the same fields and order as the list of messages."""
    session = _post(stack, _body("one", metadata={"trip": "7"}))[2]["chatSessionId"]
    for number in range(40):
        _post(stack, _body(f"Nr. {number} “é” 😀\n", chatSessionId=session))
    path, listed, token = f"/api/v1/sessions/{session}", [], ""
    while token is not None:
        page = stack.request("GET", f"{path}/messages?page_size=30&page_token={token}")[1]
        listed += page["messages"]
        token = page.get("next_page_token")
    with stack.connection() as connection:
        connection.request("GET", f"{path}/export", headers=stack.headers())
        response = connection.getresponse()
        assert (200, "application/jsonl") == (response.status, response.headers["content-type"])
        lines = [json.loads(line) for line in response.read().splitlines()]
    assert 82 == len(lines)
    assert [item.pop("message") | item for item in listed] == lines


def test_sessions_are_found_by_model_and_time(stack: Parley, upstream: ScriptedUpstream) -> None:
    """The list has filters; an invalid filter is a 400 that names it."""
    session = _post(stack, _body("Hi"))[2]["chatSessionId"]
    updated = stack.request("GET", f"/api/v1/sessions/{session}")[1]["updated"]

    def listed(query: str) -> list[str]:
        status, page = stack.request("GET", f"/api/v1/sessions?{query}")
        assert 200 == status
        return [item["id"] for item in page.get("sessions", [])]

    assert session in listed(f"model=scripted&updated_after={updated}&updated_before={updated + 1}")
    assert session not in listed(f"model=smollm2&updated_after={updated}")
    assert session not in listed(f"updated_before={updated}")
    assert [] == listed(f"updated_after={updated}&updated_before=1")
    status, rejected = stack.request("GET", "/api/v1/sessions?updated_after=yesterday")
    assert (400, "`updated_after` must be a whole number, zero or more") == (status, rejected["error"])


def test_a_busy_session_is_forked_and_not_deleted(stack: Parley, upstream: ScriptedUpstream) -> None:
    """A fork of a busy session has the previous turns; a deletion is a 409 until the turn ends."""
    session = _post(stack, _body("one"))[2]["chatSessionId"]
    gate = Gate()
    upstream.answer(Json(completion("two"), wait=gate))
    with ThreadPoolExecutor() as threads:
        running = threads.submit(_post, stack, _body("two", chatSessionId=session))
        upstream.received(1)
        status, rejected = stack.request("DELETE", f"/api/v1/sessions/{session}")
        _, fork = stack.request("POST", f"/api/v1/sessions/{session}/fork", {})
        gate.set()
        assert 200 == running.result()[0]
    assert (409, f'Session "{session}" is answering another request; try again when it has finished') == (
        status,
        rejected["error"],
    )
    assert 1 == fork["turn_count"]
    assert 200 == stack.request("DELETE", f"/api/v1/sessions/{session}")[0]
    assert 200 == stack.request("GET", f"/api/v1/sessions/{fork['id']}/messages")[0]
