"""Streamed tool calls: the caller's merged calls, the stored calls, and the next request."""

import json
from typing import Any

import pytest

from tests.e2e.faults.calling import GRPC, REST, Outcome
from tests.e2e.faults.targets import Targets
from tests.upstream import DONE, USAGE, Answer, Events, Json, Received, chunk, completion

TOOLS = [{"type": "function", "function": {"name": name}} for name in ("find", "show")]
FIND = {"name": "find", "arguments": '{"place":"Bern"}'}
SHOW = {"name": "show", "arguments": "{}"}
USER: dict[str, Any] = {"role": "user", "content": "Go on."}
MODEL = "patient"


def _piece(index: int | None, arguments: Any, **fields: Any) -> dict[str, Any]:
    name = {"name": fields.pop("name")} if "name" in fields else {}
    position = {} if index is None else {"index": index}
    return chunk({"tool_calls": [{**position, **fields, "function": {**name, "arguments": arguments}}]})


HALVES = ('{"pla', 'ce":"Bern"}')
STREAMS: dict[str, list[dict[str, Any]]] = {
    "id and name in each chunk": [
        *(_piece(0, half, id="a", type="function", name="find") for half in HALVES),
        _piece(1, "{}", id="b", type="function", name="show"),
    ],
    "one index for all, together": [
        _piece(0, FIND["arguments"], id="a", name="find"),
        _piece(0, "{}", id="b", name="show"),
    ],
    "neither index nor id, arguments as they like": [
        _piece(None, {"place": "Bern"}, name="find"),
        _piece(None, None, name="show"),
    ],
}


def _calls_tools(request: Received, pieces: list[dict[str, Any]]) -> Answer:
    """Answers with the row's tool calls, unary or streaming, and the next turn with a text."""
    if len(request.json["messages"]) > 1:
        return (
            Json(completion("Done.")) if not request.json.get("stream") else Events([chunk({"content": "Done."}), DONE])
        )
    if request.json.get("stream"):
        return Events([*pieces, chunk(finish="tool_calls"), chunk(choices=[], usage=USAGE), DONE], together=True)
    made = [{"type": "function", "function": function} for function in (FIND, SHOW | {"arguments": None})]
    return Json(completion(None, tool_calls=made))


def _joined(outcome: Outcome) -> list[dict[str, str]]:
    """Merges tool calls as clients do: text is appended by index."""
    calls: dict[int, dict[str, str]] = {}
    for part in outcome.chunks:
        for choice in part.get("choices", ()):
            pieces = choice["delta"].get("tool_calls", choice["delta"].get("toolCalls", []))
            assert len(pieces) <= 1, "clients read the first one only"
            for piece in pieces:
                call = calls.setdefault(piece["index"], {"id": "", "name": "", "arguments": ""})
                call["id"] += piece.get("id") or ""
                for name, value in piece.get("function", {}).items():
                    call[name] += value
    return [calls[index] for index in sorted(calls)]


@pytest.mark.parametrize("by", [REST, GRPC])
@pytest.mark.parametrize("pieces", STREAMS.values(), ids=STREAMS)
def test_streamed_tool_calls_are_kept_and_sent_once(targets: Targets, by: str, pieces: list[dict[str, Any]]) -> None:
    """Each call has one id, one name and its arguments, for the caller and in the next turn of its session."""
    targets.set_script(f"{MODEL}/one", lambda request: _calls_tools(request, pieces))
    outcome = targets.call(MODEL, by, tools=TOOLS)
    assert (None, ["tool_calls"]) == (outcome.reason, outcome.finishes)
    joined = _joined(outcome)
    assert [FIND, SHOW] == [{name: call[name] for name in ("name", "arguments")} for call in joined]
    _check_next_turn(targets, outcome, [call["id"] for call in joined])


def test_tool_calls_of_a_unary_answer_get_ids(targets: Targets) -> None:
    """A tool call without an id gets one."""
    targets.set_script("alone/one", lambda request: _calls_tools(request, []))
    status, answer = targets.parley.request(
        "POST", "/v1/chat/completions", {"model": "alone", "messages": [USER], "tools": TOOLS}
    )
    assert 200 == status
    made = answer["choices"][0]["message"]["tool_calls"]
    assert [FIND, SHOW] == [call["function"] for call in made]
    assert 2 == len({call["id"] for call in made if call["id"]})


def _check_next_turn(targets: Targets, outcome: Outcome, ids: list[str]) -> None:
    """Sends the results of the calls, and checks the request at the target."""
    results = [{"role": "tool", "tool_call_id": call_id, "content": "42"} for call_id in ids]
    fields = {"chatSessionId": outcome.session, "messages": results, "tools": TOOLS}
    status, _ = targets.parley.request("POST", "/v1/chat/completions", {"model": MODEL, **fields})
    assert 200 == status
    sent = targets.seen(f"{MODEL}/one", 2)[1].json["messages"]
    kept = sent[1]["tool_calls"]
    assert [(call_id, function) for call_id, function in zip(ids, (FIND, SHOW), strict=True)] == [
        (call["id"], json.loads(json.dumps(call["function"]))) for call in kept
    ]
