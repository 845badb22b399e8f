"""The order of rejections: the key before the body, the model before the messages, and all violations in `fastapi`."""

import json
from typing import Any

import pytest

from tests.e2e.documents import MESSAGES, send, send_fields
from tests.processes import Parley
from tests.upstream import ScriptedUpstream

PATHS = {
    "openai": "/v1/chat/completions",
    "chipp": "/api/v1/chat/completions",
    "upchatty": "/upchatty/api/v1/chat/completions",
    "fastapi": "/fastapi/api/v1/chat/completions",
    "openpipe": "/openpipe/api/v1/chat/completions",
}
BROKEN = [
    b"{",
    b"",
    b"[]",
    b'{"model": 5, "messages": 7}',
    b'{"model": "scripted", "messages": [{"role": 1}]}',
    b'{"model": "scripted", "model": "x"}',
    b'{"stream": "yes"}',
    b'{"model": "scripted", "messages": [], "temperature": 5}',
    b'{"extra_body": {"a": 1e400}}',
    b'{"user": "\xff"}',
]


def message_of(answer: Any) -> Any:
    """Returns the message of an error in any dialect."""
    found = answer["detail"] if "detail" in answer else answer["error"]
    return found["message"] if isinstance(found, dict) else found


@pytest.mark.parametrize("dialect", PATHS)
@pytest.mark.parametrize(("key", "text"), [(None, "Missing API key"), ("Bearer sk-wrong", "Invalid API key")])
def test_a_key_comes_before_the_body(
    stack: Parley, upstream: ScriptedUpstream, dialect: str, key: str | None, text: str
) -> None:
    """A call without a valid key gets only the error of the key, whatever its body."""
    source = f"127.0.0.{20 + [*PATHS].index(dialect)}"  # each address may fail 100 times at once
    for body in BROKEN:
        if body == BROKEN[-1] and key:
            continue  # Envoy's transcoder rejects invalid UTF-8 before the service is called
        status, data, headers = send(stack, PATHS[dialect], body, {"Authorization": key}, source)
        assert (401, text) == (status, message_of(json.loads(data))), body
        assert headers["www-authenticate"].startswith("Bearer")
        assert (
            status
            == send(stack, PATHS[dialect], body, {"Authorization": key, "Accept": "text/event-stream"}, source)[0]
        )
    assert [] == upstream.requests


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_key_comes_before_a_session_s_parameters(stack: Parley, method: str) -> None:
    """The key is checked before queries and the bodies of forks, too."""
    path = "/api/v1/sessions?page_size=x" if method == "GET" else "/api/v1/sessions/x/fork"
    for key in ("none", "sk-wrong") if method == "POST" else ("none",):
        headers = {} if key == "none" else {"Authorization": f"Bearer {key}"}
        with stack.connection("127.0.0.11") as connection:  # each address may fail 100 times at once
            connection.request(method, path, None if method == "GET" else '{"through_turn": "x"}', headers)
            assert 401 == connection.getresponse().status


@pytest.mark.parametrize("dialect", ["chipp", "upchatty", "openpipe"])
@pytest.mark.parametrize("fields", [{"model": None}, {"model": None, "messages": None}, {"model": ""}])
def test_a_required_model(stack: Parley, upstream: ScriptedUpstream, dialect: str, fields: dict[str, Any]) -> None:
    """In dialects that require a model, the default does not apply, and the missing model is the first error."""
    for stream in (False, True):
        status, answer, _ = send_fields(stack, PATHS[dialect], fields | {"stream": stream})
        assert (400, "`model` is required and must be a string") == (status, message_of(answer))
    body = {"model": None, "messages": MESSAGES}
    status, data, _ = send(stack, PATHS[dialect], body)
    assert (400, "`model` is required and must be a string") == (status, message_of(json.loads(data)))
    assert [] == upstream.requests


@pytest.mark.parametrize("dialect", ["openai", "fastapi"])
def test_elsewhere_the_default_model_answers(stack: Parley, dialect: str) -> None:
    """`/v1` and `/fastapi` use the default model."""
    status, answer, _ = send_fields(stack, PATHS[dialect], {"model": None, "max_tokens": 4})
    assert (200, "smollm2") == (status, answer["model"])


VIOLATIONS: list[tuple[str, list[tuple[list[Any], str]]]] = [
    ("{}", [(["messages"], "missing")]),
    ('{"model": 5, "messages": 7}', [(["model"], "string_type"), (["messages"], "list_type")]),
    ('{"model": "", "messages": []}', [(["model"], "string_too_short"), (["messages"], "too_short")]),
    ('{"messages": [{"content": "x"}]}', [(["messages", 0, "role"], "missing")]),
    (
        '{"n": "x", "model": 5, "messages": [{"role": "king"}, {"role": "user"}], "temperature": 9, "stream": []}',
        [
            (["model"], "string_type"),
            (["messages", 0, "role"], "literal_error"),
            (["messages", 1, "content"], "missing"),
            (["n"], "int_parsing"),
            (["stream"], "bool_type"),
            (["temperature"], "less_than_equal"),
        ],
    ),
    ('{"messages": null}', [(["messages"], "list_type")]),
    ('{"messages": [{"role": null, "content": null}]}', [(["messages", 0, "role"], "string_type")]),
    ('{"messages": [{"role": "user", "content": null}]}', [(["messages", 0, "content"], "string_type")]),
    (
        '{"messages": [{"role": "user", "content": "x", "name": 5}], "tools": [null, {"type": null}]}',
        [
            (["messages", 0, "name"], "string_type"),
            (["tools", 0], "model_attributes_type"),
            (["tools", 1, "type"], "string_type"),
        ],
    ),
    ('{"messages": [null]}', [(["messages", 0], "model_attributes_type")]),
    ("[]", [([], "model_attributes_type")]),
    ("{", [([], "json_invalid")]),
]


@pytest.mark.parametrize(("body", "expected"), VIOLATIONS)
def test_fastapi_returns_every_violation_with_its_type(
    stack: Parley, upstream: ScriptedUpstream, body: str, expected: list[tuple[list[Any], str]]
) -> None:
    """Absent, wrongly typed and out-of-range fields are in one 422."""
    status, data, _ = send(stack, PATHS["fastapi"], body.encode())
    assert 422 == status
    found = [(item["loc"], item["type"]) for item in json.loads(data)["detail"]]
    assert [(["body", *loc], kind) for loc, kind in expected] == found
    assert [] == upstream.requests
