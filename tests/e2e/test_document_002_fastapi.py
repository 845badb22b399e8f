"""The API document of the dialect `fastapi`, row by row: body fields and their nulls, Accept, 422 details, sessions."""

import json
from typing import Any

import pytest

from tests.e2e.documents import MESSAGES, send, send_fields
from tests.processes import Parley
from tests.sse import chunks
from tests.upstream import DONE, Events, ScriptedUpstream

PATH = "/fastapi/api/v1/chat/completions"
TOOL = {"type": "function", "function": {"name": "string", "description": "string", "parameters": {}}}
NULLABLE = (
    "model temperature top_p n stream stop max_tokens presence_penalty frequency_penalty tools tool_choice session_id"
)
VALUES: dict[str, Any] = {
    "temperature": 1,
    "top_p": 1,
    "n": 1,
    "stop": "string",
    "max_tokens": 7,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "tools": [TOOL],
}


def _example() -> dict[str, Any]:
    """Returns the document's example with a valid model, role and tool choice."""
    message = {
        "role": "assistant",
        "content": "string",
        "name": "string",
        "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "string", "arguments": "{}"}}],
    }
    answer = {"role": "tool", "content": "string", "tool_call_id": "call_1"}
    return {
        "model": "scripted",
        "messages": [message, answer],
        "stream": False,
        **VALUES,
        "tool_choice": "auto",
    }


@pytest.mark.parametrize("field", NULLABLE.split())
def test_null_is_allowed_where_the_document_says_so(stack: Parley, upstream: ScriptedUpstream, field: str) -> None:
    """`field: … | null`: null is equivalent to an absent field; a missing model selects the default."""
    body = {"model": "scripted", "messages": MESSAGES, field: None} | ({"max_tokens": 4} if field == "model" else {})
    status, data, _ = send(stack, PATH, body)
    assert 200 == status, data
    if field == "model":
        assert "smollm2" == json.loads(data)["model"]
    elif field != "stream":  # a complete answer may be requested as a stream if there is another target
        assert field not in upstream.requests[0].json


def test_every_field_of_the_example_reaches_the_model(stack: Parley, upstream: ScriptedUpstream) -> None:
    """Each field of the example body reaches the model with its value."""
    status, data, _ = send(stack, PATH, _example())
    assert 200 == status, data
    sent = upstream.requests[0].json
    assert VALUES.items() <= sent.items()
    assert "auto" == sent["tool_choice"]
    assert _example()["messages"] == sent["messages"]


@pytest.mark.parametrize("stop", ["a", ["a", "b"]])
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "string"}}])
def test_stop_and_tool_choice_in_both_forms(stack: Parley, upstream: ScriptedUpstream, stop: Any, choice: Any) -> None:
    """`stop` is a string or an array, `tool_choice` a string or an object."""
    assert 200 == send_fields(stack, PATH, {"stop": stop, "tools": [TOOL], "tool_choice": choice})[0]
    assert (stop, choice) == (upstream.requests[0].json["stop"], upstream.requests[0].json["tool_choice"])


@pytest.mark.parametrize("stream", [True, False, None])
@pytest.mark.parametrize("accept", ["text/event-stream", "application/json"])
def test_the_accept_header_decides_the_form(
    stack: Parley, upstream: ScriptedUpstream, accept: str, stream: bool | None
) -> None:
    """The Accept header selects events or a complete answer, whatever the value of `stream`."""
    fields = {} if stream is None else {"stream": stream}
    _, data, headers = send(stack, PATH, {"model": "scripted", "messages": MESSAGES, **fields}, {"Accept": accept})
    assert accept == headers["content-type"]
    if accept == "text/event-stream":
        assert chunks(data)
    else:
        assert "chat.completion" == json.loads(data)["object"]


def test_tool_calls_in_streams(stack: Parley, upstream: ScriptedUpstream) -> None:
    """Streamed tool calls have id and name first, then arguments in pieces, at a constant index."""
    pieces: list[dict[str, Any]] = [
        {"index": 0, "id": "call_1", "type": "function", "function": {"name": "string", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"a"'}},
        {"index": 0, "function": {"arguments": ":1}"}},
    ]
    events: list[Any] = [{"choices": [{"index": 0, "delta": {"tool_calls": [piece]}}]} for piece in pieces]
    events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    upstream.answer(Events([*events, DONE]))
    body = {"model": "scripted", "messages": MESSAGES, "tools": [TOOL]}
    _, data, _ = send(stack, PATH, body, {"Accept": "text/event-stream"})
    calls = [c for chunk in chunks(data) for c in chunk["choices"][0]["delta"].get("tool_calls", ())]
    assert {0} == {call["index"] for call in calls}
    assert ("call_1", "string") == (calls[0]["id"], calls[0]["function"]["name"])
    assert '{"a":1}' == "".join(call["function"]["arguments"] for call in calls)
    assert "tool_calls" == chunks(data)[-1]["choices"][0]["finish_reason"]


def test_every_violation_is_in_the_422_body(stack: Parley, upstream: ScriptedUpstream) -> None:
    """`detail` has one item per violation, with `loc`, `msg` and `type`."""
    status, answer, _ = send_fields(stack, PATH, {"messages": [{"role": "king", "content": "x"}], "n": 0, "top_p": 2})
    assert 422 == status
    assert [["body", "messages", 0, "role"], ["body", "top_p"], ["body", "n"]] == [
        item["loc"] for item in answer["detail"]
    ]
    assert {("loc", "msg", "type")} == {tuple(item) for item in answer["detail"]}
    assert [] == upstream.requests


@pytest.mark.parametrize(
    ("body", "loc"),
    [
        (b'{"model": 5, "messages": []}', ["body", "model"]),
        (b'{"messages": "no"}', ["body", "messages"]),
        (b"{}", ["body", "messages"]),
        (b'{"messages": [', ["body"]),
    ],
)
def test_rejections_of_the_edge_have_the_same_body(stack: Parley, body: bytes, loc: list[Any]) -> None:
    """The edge rejects wrong types and broken JSON with the document's 422, too."""
    status, data, _ = send(stack, PATH, body)
    assert 422 == status
    assert loc == json.loads(data)["detail"][0]["loc"]


def test_other_errors_have_a_text_as_detail(stack: Parley) -> None:
    """Errors of authorization and of unknown models are `{"detail": "message"}`."""
    assert (401, {"detail": "Missing API key"}) == send_fields(stack, PATH, {}, {"Authorization": None})[:2]
    assert (401, {"detail": "Invalid API key"}) == send_fields(stack, PATH, {}, {"Authorization": "Bearer sk-no"})[:2]
    assert (404, {"detail": 'Unknown model "nosuch"'}) == send_fields(stack, PATH, {"model": "nosuch"})[:2]


def test_sessions_are_created_and_continued_by_session_id(stack: Parley, upstream: ScriptedUpstream) -> None:
    """A session is created if the model enables sessions, and continued by `session_id`."""
    session = send_fields(stack, PATH, {})[1]["chatSessionId"]
    assert session == send_fields(stack, PATH, {"session_id": session})[1]["chatSessionId"]
    assert 3 == len(upstream.requests[1].json["messages"])
