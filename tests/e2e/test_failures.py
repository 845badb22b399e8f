"""Invalid requests and lost connections through the full stack: errors, and further calls."""

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

# The request, and the status and message of its error.
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
    """Returns the text of an error in the format of its dialect, which has no further fields."""
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
    """An invalid request is never a 500, and the next valid one is answered."""
    body, status, text = BAD[what]
    path = f"{prefix}/chat/completions"
    got, error, headers = _raw(stack, "POST", path, body, stack.headers())
    assert (status, "application/json") == (got, headers["content-type"])
    assert text in _message(path, error)
    assert "Hello there." == stack.chat("Hi", model="scripted")


@pytest.mark.parametrize("prefix", ["/v1", "/api/v1"])
def test_wrong_paths_methods_and_keys_have_their_status(stack: Parley, prefix: str) -> None:
    """Errors have their status: 404, 405 with Allow, 401 without or with a wrong key, 415 for a wrong content type."""
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


def test_an_upstream_rejection_reaches_the_caller(stack: Parley, upstream: ScriptedUpstream) -> None:
    """The message of an upstream's 400 reaches the caller; those of its 500 and 401 do not."""
    rejected = {"error": {"message": "No such voice", "type": "invalid_request_error", "param": None, "code": None}}
    for status, expected, reported in ((400, 400, True), (500, 503, False), (401, 503, False), (429, 429, False)):
        upstream.reset()
        upstream.default = Json(rejected, status=status)
        got, error = stack.request("POST", "/v1/chat/completions", {"model": "scripted", "messages": USER})
        assert (expected, reported) == (got, "No such voice" in error["error"]["message"])


@pytest.mark.parametrize("tokens_first", [True, False], ids=["in mid-stream", "before the first token"])
def test_a_disconnected_stream_closes_the_upstream_connection(
    stack: Parley, upstream: ScriptedUpstream, tokens_first: bool
) -> None:
    """A client that closes its socket during a stream closes the upstream connection within one second."""
    gate = Gate()
    upstream.answer(Events([*chunks("Hel", "lo"), gate] if tokens_first else [gate]))
    connection = _open_stream(stack)
    if tokens_first:
        received = b""
        while b'"lo"' not in received and b'"Hello"' not in received:
            received += (data := connection.recv(65536))
            assert data
    request = upstream.received()
    connection.close()
    assert request.closed.wait(1.0)
    gate.set()
    assert {("incomplete", "cancelled")} == {(m["state"], m["reason"]) for m in _kept(stack)}
    assert (["Hello"] if tokens_first else []) == [
        m["message"]["content"] for m in _kept(stack) if m["message"]["role"] == "assistant"
    ]


def test_a_disconnected_unary_call_closes_the_upstream_connection(stack: Parley, upstream: ScriptedUpstream) -> None:
    """A client that closes its socket during a unary call closes the upstream connection, too."""
    gate = Gate()
    upstream.answer(Events([gate]))
    connection = _open_stream(stack, b"false")
    request = upstream.received()
    connection.close()
    assert request.closed.wait(1.0)
    gate.set()
    assert [("user", "cancelled")] == [(m["message"]["role"], m["reason"]) for m in _kept(stack)]


@pytest.mark.parametrize("is_stream", [True, False], ids=["streamed", "whole"])
def test_a_cancelled_grpc_call_closes_the_upstream_connection(
    stack: Parley, upstream: ScriptedUpstream, is_stream: bool
) -> None:
    """A cancelled gRPC call closes the upstream connection within a second, and its turn is stored as cancelled."""
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
    """A stream that the upstream cuts ends with an error event, without [DONE]; the session keeps its text."""
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
    """Returns the messages of the latest session after its turns have ended."""
    [session] = stack.request("GET", "/api/v1/sessions?page_size=1")[1]["sessions"]
    url = f"/api/v1/sessions/{session['id']}/messages"
    until(lambda: "in_progress" not in str(stack.request("GET", url)), "the turn is settled")
    return list(stack.request("GET", url)[1]["messages"])


def _open_stream(stack: Parley, stream: bytes = b"true") -> socket.socket:
    """Sends a request as bytes, so that the socket can be closed at any moment."""
    address = urlsplit(stack.http)
    connection = socket.create_connection((address.hostname, address.port))
    body = b'{"model": "scripted", "stream": %b, "messages": [{"role": "user", "content": "Hi"}]}' % stream
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    headers = "".join(f"{name}: {value}\r\n" for name, value in stack.headers().items())
    connection.sendall((head + headers + "\r\n").encode() + body)
    return connection
