"""Bad input and lost connections, through the whole stack: clear answers, and a service as well as before."""

import json
import socket
from typing import Any
from urllib.parse import urlsplit

import grpc
import pytest
from google.protobuf.json_format import ParseDict

from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from tests.processes import Parley, until
from tests.upstream import Cut, Events, Gate, Json, ScriptedUpstream, chunks

USER = [{"role": "user", "content": "Hi"}]
MODEL = "`model` is required and must be a string"
MESSAGES = "`messages` must be a non-empty array"

# What is sent, and the status and message that come back.
BAD: dict[str, tuple[bytes, int, str]] = {
    "model of the wrong type": (b'{"model": 123, "messages": [{"role": "user", "content": "a"}]}', 400, MODEL),
    "nothing but a model": (b'{"model": "smollm2"}', 400, MESSAGES),
    "no messages": (b'{"model": "smollm2", "messages": []}', 400, MESSAGES),
    "messages of the wrong type": (b'{"model": "smollm2", "messages": "no"}', 400, MESSAGES),
    "broken JSON": (b'{"model": "smollm2", ', 400, "The request body is not valid JSON"),
    "a body of 9 MB": (b'{"model": "' + b"x" * 9_000_000 + b'"}', 413, ""),
    "an unknown model": (b'{"model": "x", "messages": [{"role": "user", "content": "a"}]}', 404, 'Unknown model "x"'),
    "a thousand faults": (
        b'{"model": "smollm2", "messages": [%b{}]}' % (b"{}, " * 999),
        400,
        "`messages[0].role` must be one of",
    ),
    "an endless session id": (
        b'{"model": "smollm2", "messages": [{"role": "user", "content": "a"}], "session_id": "%b"}' % (b"x" * 200_000),
        404,
        "Unknown session",
    ),
}


def _raw(stack: Parley, method: str, path: str, body: bytes | None, headers: dict[str, Any]) -> tuple[int, Any, Any]:
    with stack.connection() as connection:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read()), response.headers


def _message(path: str, body: Any) -> str:
    """The error's text, from where the path's dialect has it; nothing else may be in it."""
    if path.startswith("/api/"):
        assert ["error"] == list(body)
        return str(body["error"])
    assert ["message", "type", "param", "code"] == list(body["error"])
    return str(body["error"]["message"])


@pytest.mark.parametrize("prefix", ["/v1", "/api/v1"])
@pytest.mark.parametrize("what", BAD)
def test_bad_input_has_its_status_and_its_dialects_body(
    stack: Parley, upstream: ScriptedUpstream, prefix: str, what: str
) -> None:
    """No bad request is a 500, and the next good one is answered."""
    body, status, text = BAD[what]
    path = f"{prefix}/chat/completions"
    got, error, headers = _raw(stack, "POST", path, body, stack.headers())
    assert (status, "application/json") == (got, headers["content-type"])
    assert text in _message(path, error)
    assert "Hello there." == stack.ask("Hi", model="scripted")


@pytest.mark.parametrize("prefix", ["/v1", "/api/v1"])
def test_wrong_paths_methods_and_keys_have_their_status(stack: Parley, prefix: str) -> None:
    """404, 405 with Allow, 401 for no key and for a wrong one, 415 for another type of content."""
    path = f"{prefix}/chat/completions"
    good = stack.headers()
    cases: list[tuple[str, str, dict[str, str], int, str]] = [
        ("POST", f"{prefix}/nosuch", good, 404, ""),
        ("GET", path, good, 405, ""),
        ("POST", path, {"Content-Type": "application/json"}, 401, "Missing API key"),
        ("POST", path, good | {"Authorization": "Bearer sk-wrong"}, 401, "Invalid API key"),
        ("POST", path, good | {"Content-Type": "text/plain"}, 415, ""),
    ]
    for method, target, headers, status, text in cases:
        body = b'{"messages": [{"role": "user", "content": "a"}]}' if method == "POST" else None
        got, error, answer = _raw(stack, method, target, body, headers)
        assert status == got, (method, target)
        assert text in _message(target, error)
        if status == 405:
            assert "POST" == answer["allow"]


def test_the_upstreams_refusal_reaches_the_caller(stack: Parley, upstream: ScriptedUpstream) -> None:
    """A 400 of the backend keeps its own words; a 500 and a 401 of it do not."""
    rejected = {"error": {"message": "No such voice", "type": "invalid_request_error", "param": None, "code": None}}
    for status, expected, reported in ((400, 400, True), (500, 503, False), (401, 503, False), (429, 429, False)):
        upstream.reset()
        upstream.default = Json(rejected, status=status)
        got, error = stack.request("POST", "/v1/chat/completions", {"model": "scripted", "messages": USER})
        assert (expected, reported) == (got, "No such voice" in error["error"]["message"])


@pytest.mark.parametrize("tokens_first", [True, False], ids=["in mid-stream", "before the first token"])
def test_a_caller_who_hangs_up_frees_the_upstream(
    stack: Parley, upstream: ScriptedUpstream, tokens_first: bool
) -> None:
    """Closing the client's socket closes the upstream connection within one second."""
    gate = Gate()
    upstream.answer(Events([*chunks("Hel", "lo"), gate] if tokens_first else [gate]))
    connection = _open_stream(stack)
    if tokens_first:
        while b"Hel" not in (data := connection.recv(65536)):
            assert data
    request = upstream.received()
    connection.close()
    assert request.closed.wait(1.0)
    gate.set()
    assert {("incomplete", "cancelled")} == {(m["state"], m["reason"]) for m in _kept(stack)}
    assert (["Hello"] if tokens_first else []) == [
        m["message"]["content"] for m in _kept(stack) if m["message"]["role"] == "assistant"
    ]


def test_a_caller_who_hangs_up_on_a_whole_answer_frees_the_upstream(stack: Parley, upstream: ScriptedUpstream) -> None:
    """Unary calls are cancelled as streams are."""
    gate = Gate()
    upstream.answer(Events([gate]))
    connection = _open_stream(stack, b"false")
    request = upstream.received()
    connection.close()
    assert request.closed.wait(1.0)
    gate.set()
    assert [("user", "cancelled")] == [(m["message"]["role"], m["reason"]) for m in _kept(stack)]


@pytest.mark.parametrize("is_stream", [True, False], ids=["streamed", "whole"])
def test_a_grpc_caller_who_cancels_frees_the_upstream(
    stack: Parley, upstream: ScriptedUpstream, is_stream: bool
) -> None:
    """Through the edge's gRPC port, too, within a second, and the turn says so."""
    gate = Gate()
    upstream.answer(Events([gate]))
    request = ParseDict({"model": "scripted", "messages": USER}, CreateChatCompletionRequest())
    with grpc.insecure_channel(stack.grpc) as channel:
        stub = ChatCompletionsStub(channel)
        metadata = (("authorization", f"Bearer {stack.key}"),)
        method: Any = stub.StreamChatCompletion if is_stream else stub.CreateChatCompletion.future
        call = method(request, metadata=metadata)
        received = upstream.received()
        call.cancel()
        assert received.closed.wait(1.0)
    gate.set()
    assert [("user", "cancelled")] == [(m["message"]["role"], m["reason"]) for m in _kept(stack)]


def test_a_stream_cut_by_the_upstream_never_looks_finished(stack: Parley, upstream: ScriptedUpstream) -> None:
    """The caller gets an error event and no [DONE]; the session keeps the part as incomplete."""
    upstream.answer(Events([*chunks("Hel", "lo"), Cut()]))
    connection = _open_stream(stack)
    text = b""
    while data := connection.recv(65536):
        text += data
        if b"stream_broken" in text:
            break
    connection.close()
    assert b"stream_broken" in text
    assert b"[DONE]" not in text
    kept = _kept(stack)
    assert [("user", "incomplete"), ("assistant", "incomplete")] == [(m["message"]["role"], m["state"]) for m in kept]
    assert "Hello" == kept[1]["message"]["content"]


def _kept(stack: Parley) -> list[dict[str, Any]]:
    """The messages of the latest session, once its turns have ended."""
    [session] = stack.request("GET", "/api/v1/sessions?page_size=1")[1]["sessions"]
    url = f"/api/v1/sessions/{session['id']}/messages"
    until(lambda: "in_progress" not in str(stack.request("GET", url)), "the turn is settled")
    return list(stack.request("GET", url)[1]["messages"])


def _open_stream(stack: Parley, stream: bytes = b"true") -> socket.socket:
    """Sends a request as bytes, so that the socket can be closed at any moment."""
    place = urlsplit(stack.http)
    connection = socket.create_connection((place.hostname, place.port))
    body = b'{"model": "scripted", "stream": %b, "messages": [{"role": "user", "content": "Hi"}]}' % stream
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    headers = "".join(f"{name}: {value}\r\n" for name, value in stack.headers().items())
    connection.sendall((head + headers + "\r\n").encode() + body)
    return connection
