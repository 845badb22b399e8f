"""The API document of dialect `chipp`, row by row: headers, body, answer, statuses, errors, sessions.

Each test's id names its row. The 500 row is proved in tests/edge and tests/rpc, where a worker can be made to fail.
"""

import json
import re
from typing import Any

import pytest

from tests.e2e.documents import MESSAGES, say, send
from tests.processes import Parley, run
from tests.sse import chunks
from tests.upstream import Json, ScriptedUpstream, completion

PATH = "/api/v1/chat/completions"
PLAN = "This API is only available on a paid plan. Visit your dashboard to upgrade."

# Row of the tables: what is sent beside a good request (None: leave it out), the status, the error.
ERRORS: dict[str, tuple[dict[str, Any], dict[str, str | None], int, str]] = {
    "400 model missing or no string": ({"model": 123}, {}, 400, "`model` is required and must be a string"),
    "400 model empty": ({"model": ""}, {}, 400, "`model` is required and must be a string"),
    "400 messages empty": ({"messages": []}, {}, 400, "`messages` must be a non-empty array"),
    "400 messages no array": ({"messages": "no"}, {}, 400, "`messages` must be a non-empty array"),
    "400 messages missing": ({"messages": None}, {}, 400, "`messages` must be a non-empty array"),
    "401 missing key": ({}, {"Authorization": None}, 401, "Missing API key"),
    "401 invalid key": ({}, {"Authorization": "Bearer nonsense"}, 401, "Invalid API key"),
    "404 unknown model": ({"model": "invalidapp-999"}, {}, 404, 'Unknown model "invalidapp-999"'),
}


@pytest.mark.parametrize("row", ERRORS)
def test_error_rows(stack: Parley, row: str) -> None:
    """Each error has the document's status and text, and nothing beside `error`."""
    body, headers, status, text = ERRORS[row]
    got, answer, _ = say(stack, PATH, body, headers)
    assert (status, {"error": text}) == (got, answer)


def test_the_plan_error(stack: Parley) -> None:
    """A free account's key is refused with 401 and the document's words."""
    made = run(
        "keys", "create", "--name", "free", "--account", "free", "--plan", "free", "--json",
        "--state-dir", str(stack.folder / "state"),
    )  # fmt: skip
    got, answer, _ = say(stack, PATH, {}, {"Authorization": f"Bearer {json.loads(made.stdout)['key']}"})
    assert (401, {"error": PLAN}) == (got, answer)


def test_the_answer_is_exactly_as_shown(stack: Parley, upstream: ScriptedUpstream) -> None:
    """Every field of the example, of its type and in its order; no other."""
    answer = completion("Response text")
    del answer["system_fingerprint"]  # which the example has not
    upstream.answer(answer)
    status, answer, headers = say(stack, PATH, {})
    assert (200, "application/json") == (status, headers["content-type"])
    assert ["chatSessionId", "id", "object", "created", "model", "choices", "usage"] == list(answer)
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", answer["chatSessionId"])
    assert answer["id"].startswith("chatcmpl-")
    assert ("chat.completion", "scripted") == (answer["object"], answer["model"])
    assert isinstance(answer["created"], int)
    message = {"role": "assistant", "content": "Response text"}
    assert [{"index": 0, "message": message, "finish_reason": "stop"}] == answer["choices"]
    assert {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12} == answer["usage"]


@pytest.mark.parametrize("role", ["user", "assistant", "system"])
def test_roles_of_messages(stack: Parley, upstream: ScriptedUpstream, role: str) -> None:
    """`messages`: each documented role reaches the model with its content."""
    assert 200 == say(stack, PATH, {"messages": [{"role": role, "content": "x"}, *MESSAGES]})[0]
    assert {"role": role, "content": "x"} == upstream.requests[0].json["messages"][0]


def test_stream_is_false_by_default(stack: Parley, upstream: ScriptedUpstream) -> None:
    """`stream`: left out or false, the answer is whole; true, it is events."""
    for unset in ({}, {"stream": False}):
        assert "application/json" == say(stack, PATH, unset)[2]["content-type"]
    _, data, headers = send(stack, PATH, {"model": "scripted", "messages": MESSAGES, "stream": True})
    assert "text/event-stream" == headers["content-type"]
    assert chunks(data)


def test_x_correlation_id_is_echoed_and_logged(stack: Parley, upstream: ScriptedUpstream) -> None:
    """`X-Correlation-ID`: in the answer's headers and in the log line, for good calls and bad ones."""
    for name, body in (("trace-1.a_B", {}), ("trace-2", {"model": "nosuch"}), ("order:42/7 b2s=", {})):
        _, _, headers = say(stack, PATH, body, {"X-Correlation-ID": name})
        assert name == headers["x-correlation-id"]
        stack.log_says(f'"correlation_id":"{name}"')
    _, _, headers = say(stack, PATH, {}, {"X-Correlation-ID": "a\tb"})
    assert headers["x-request-id"] == headers["x-correlation-id"]


@pytest.mark.parametrize("path", [PATH, "/upchatty" + PATH])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [500, 401, 404, 503])
def test_500_whatever_the_upstream_fails_with(
    stack: Parley, upstream: ScriptedUpstream, path: str, status: int, *, stream: bool
) -> None:
    """500 is the documents' only server error."""
    upstream.answer(Json({"error": {"message": "no"}}, status))
    got, answer, headers = say(stack, path, {"stream": stream})
    assert (500, {"error": "Internal Server Error"}) == (got, answer)
    assert headers["retry-after"]


@pytest.mark.parametrize("how", ["body", "path"])
def test_a_session_id_ignores_case(stack: Parley, upstream: ScriptedUpstream, how: str) -> None:
    """An upper-case UUID is the same session; an empty id is a new one."""
    first = say(stack, PATH, {"chatSessionId": ""})[1]["chatSessionId"]
    if how == "body":
        assert first == say(stack, PATH, {"chatSessionId": first.upper()})[1]["chatSessionId"]
        assert 3 == len(upstream.requests[1].json["messages"])
    else:
        assert first == stack.request("GET", f"/api/v1/sessions/{first.upper()}")[1]["id"]
        assert 2 == len(stack.request("GET", f"/api/v1/sessions/{first.upper()}/messages")[1]["messages"])


def test_a_misplaced_key_is_told_where_it_belongs(stack: Parley) -> None:
    """401 says what it asks for, as RFC 9110 demands, and where a key belongs that came in another header."""
    status, answer, headers = say(stack, PATH, {}, {"Authorization": None, "x-api-key": stack.key})
    assert (401, 'Bearer realm="parley"') == (status, headers["www-authenticate"])
    assert "Missing API key; send it as `Authorization: Bearer <key>`, not in `x-api-key`" == answer["error"]
    _, _, headers = say(stack, PATH, {}, {"Authorization": "Bearer sk-no"})
    assert 'error="invalid_token"' in headers["www-authenticate"]


@pytest.mark.parametrize("how", ["chatSessionId", "X-Chat-Session-ID"])
def test_sessions_start_fresh_and_continue(stack: Parley, upstream: ScriptedUpstream, how: str) -> None:
    """Omitted: fresh. Included, in the body or the header: previous messages are loaded automatically."""
    first, fresh = say(stack, PATH, {})[1]["chatSessionId"], say(stack, PATH, {})[1]["chatSessionId"]
    assert first != fresh
    body, headers = ({how: first}, {}) if how == "chatSessionId" else ({}, {how: first})
    assert first == say(stack, PATH, body, headers)[1]["chatSessionId"]
    assert ["user", "assistant", "user"] == [m["role"] for m in upstream.requests[2].json["messages"]]


def test_a_session_that_streams_tells_its_id(stack: Parley, upstream: ScriptedUpstream) -> None:
    """The id is in the header and in every chunk, so that a streaming client can continue too."""
    _, data, headers = send(stack, PATH, {"model": "scripted", "messages": MESSAGES, "stream": True})
    assert {headers["x-chat-session-id"]} == {chunk["chatSessionId"] for chunk in chunks(data)}
