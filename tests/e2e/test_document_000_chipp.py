"""The API document of the dialect `chipp`, row by row: headers, body, answer, statuses, errors, sessions.

The id of each test names its row. tests/edge and tests/rpc test the row of status 500, with a worker that fails.
"""

import json
import re
from typing import Any

import pytest

from tests.e2e.documents import MESSAGES, send, send_fields
from tests.processes import Parley, run
from tests.sse import chunks
from tests.upstream import Json, ScriptedUpstream, completion

PATH = "/api/v1/chat/completions"
PLAN = "This API is only available on a paid plan. Visit your dashboard to upgrade."

# Row of the tables: changes of a valid request (None: omitted), the status, the error.
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
    """Each error has the document's status and text, and no field besides `error`."""
    body, headers, status, text = ERRORS[row]
    got, answer, _ = send_fields(stack, PATH, body, headers)
    assert (status, {"error": text}) == (got, answer)


def test_the_plan_error(stack: Parley) -> None:
    """The key of a free account is rejected with 401 and the document's message."""
    made = run(
        "keys", "create", "--name", "free", "--account", "free", "--plan", "free", "--json",
        "--state-dir", str(stack.folder / "state"),
    )  # fmt: skip
    got, answer, _ = send_fields(stack, PATH, {}, {"Authorization": f"Bearer {json.loads(made.stdout)['key']}"})
    assert (401, {"error": PLAN}) == (got, answer)


def test_the_answer_is_exactly_as_shown(stack: Parley, upstream: ScriptedUpstream) -> None:
    """The answer has each field of the example, with its type and in its order, and no others."""
    answer = completion("Response text")
    del answer["system_fingerprint"]  # which the example lacks
    upstream.answer(answer)
    status, answer, headers = send_fields(stack, PATH, {})
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
    assert 200 == send_fields(stack, PATH, {"messages": [{"role": role, "content": "x"}, *MESSAGES]})[0]
    assert {"role": role, "content": "x"} == upstream.requests[0].json["messages"][0]


def test_stream_is_false_by_default(stack: Parley, upstream: ScriptedUpstream) -> None:
    """`stream`: an absent or false value selects a complete answer, true selects events."""
    for unset in ({}, {"stream": False}):
        assert "application/json" == send_fields(stack, PATH, unset)[2]["content-type"]
    _, data, headers = send(stack, PATH, {"model": "scripted", "messages": MESSAGES, "stream": True})
    assert "text/event-stream" == headers["content-type"]
    assert chunks(data)


def test_x_correlation_id_is_echoed_and_logged(stack: Parley, upstream: ScriptedUpstream) -> None:
    """`X-Correlation-ID` is in the response headers and in the log line, for valid and invalid calls."""
    for name, body in (("trace-1.a_B", {}), ("trace-2", {"model": "nosuch"}), ("order:42/7 b2s=", {})):
        _, _, headers = send_fields(stack, PATH, body, {"X-Correlation-ID": name})
        assert name == headers["x-correlation-id"]
        stack.wait_for_log(f'"correlation_id":"{name}"')
    _, _, headers = send_fields(stack, PATH, {}, {"X-Correlation-ID": "a\tb"})
    assert headers["x-request-id"] == headers["x-correlation-id"]


@pytest.mark.parametrize("path", [PATH, "/upchatty" + PATH])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [500, 401, 404, 503])
def test_500_for_every_upstream_failure(
    stack: Parley, upstream: ScriptedUpstream, path: str, status: int, *, stream: bool
) -> None:
    """Every failure of an upstream is a 500, the documents' only server error."""
    upstream.answer(Json({"error": {"message": "no"}}, status))
    got, answer, headers = send_fields(stack, path, {"stream": stream})
    assert (500, {"error": "Internal Server Error"}) == (got, answer)
    assert headers["retry-after"]


@pytest.mark.parametrize("how", ["body", "path"])
def test_a_session_id_ignores_case(stack: Parley, upstream: ScriptedUpstream, how: str) -> None:
    """An upper-case UUID names the same session; an empty id starts a new one."""
    first = send_fields(stack, PATH, {"chatSessionId": ""})[1]["chatSessionId"]
    if how == "body":
        assert first == send_fields(stack, PATH, {"chatSessionId": first.upper()})[1]["chatSessionId"]
        assert 3 == len(upstream.requests[1].json["messages"])
    else:
        assert first == stack.request("GET", f"/api/v1/sessions/{first.upper()}")[1]["id"]
        assert 2 == len(stack.request("GET", f"/api/v1/sessions/{first.upper()}/messages")[1]["messages"])


def test_a_misplaced_key_is_rejected_with_the_right_header(stack: Parley) -> None:
    """401 has a challenge (RFC 9110), and names the right header for a key in another header."""
    status, answer, headers = send_fields(stack, PATH, {}, {"Authorization": None, "x-api-key": stack.key})
    assert (401, 'Bearer realm="parley"') == (status, headers["www-authenticate"])
    assert "Missing API key; send it as `Authorization: Bearer <key>`, not in `x-api-key`" == answer["error"]
    _, _, headers = send_fields(stack, PATH, {}, {"Authorization": "Bearer sk-no"})
    assert 'error="invalid_token"' in headers["www-authenticate"]


@pytest.mark.parametrize("how", ["chatSessionId", "X-Chat-Session-ID"])
def test_sessions_start_fresh_and_continue(stack: Parley, upstream: ScriptedUpstream, how: str) -> None:
    """A request without a session starts one; with a session in body or header, it continues with the history."""
    first, fresh = send_fields(stack, PATH, {})[1]["chatSessionId"], send_fields(stack, PATH, {})[1]["chatSessionId"]
    assert first != fresh
    body, headers = ({how: first}, {}) if how == "chatSessionId" else ({}, {how: first})
    assert first == send_fields(stack, PATH, body, headers)[1]["chatSessionId"]
    assert ["user", "assistant", "user"] == [m["role"] for m in upstream.requests[2].json["messages"]]


def test_a_stream_contains_its_session_id(stack: Parley, upstream: ScriptedUpstream) -> None:
    """The session id is in the header and in every chunk, so that a streaming client can continue."""
    _, data, headers = send(stack, PATH, {"model": "scripted", "messages": MESSAGES, "stream": True})
    assert {headers["x-chat-session-id"]} == {chunk["chatSessionId"] for chunk in chunks(data)}
