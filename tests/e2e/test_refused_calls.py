"""The log of requests that Envoy refuses, and of those that it passes on."""

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from http.client import IncompleteRead
from typing import Any
from urllib.parse import urlsplit

import grpc
import pytest

from tests.processes import Parley, started
from tests.upstream import Events, ScriptedUpstream, Stall, chunks

CHAT = "/v1/chat/completions"
ASK = {"model": "scripted", "messages": [{"role": "user", "content": "the-prompt"}], "store": False}


@pytest.fixture(scope="module")
def parley(the_upstream: ScriptedUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parley]:
    """A Parley with one worker."""
    file = tmp_path_factory.mktemp("refused") / "parley.yaml"
    file.write_text(
        f"backends:\n  up: {{kind: openai, base_url: '{the_upstream.url}'}}\n"
        "models:\n  - {id: scripted, targets: [{backend: up, model: m}], retries: {attempts: 1}}\n"
    )
    with started("--config", str(file), "--workers", "1") as running:
        yield running


def events(parley: Parley, **fields: Any) -> list[dict[str, Any]]:
    """Returns the events of the log that have these fields."""
    lines = (json.loads(line) for line in parley.log.splitlines() if line.startswith("{"))
    return [line for line in lines if fields.items() <= line.items()]


def wait_events(parley: Parley, number: int, **fields: Any) -> list[dict[str, Any]]:
    """Waits until the log has so many events with these fields."""
    for _ in range(600):
        found = events(parley, **fields)
        if len(found) >= number:
            return found
        time.sleep(0.05)
    raise AssertionError(f"no event with {fields} in:\n{parley.log}")


def raw(parley: Parley, data: bytes) -> bytes:
    """Sends bytes to the REST listener, and returns what it sends until it closes the connection."""
    with socket.create_connection(("127.0.0.1", urlsplit(parley.http).port)) as connection:
        connection.sendall(data)
        received = b""
        with suppress(ConnectionResetError):
            while piece := connection.recv(65536):
                received += piece
        return received


def complete(parley: Parley, request_id: str, body: Any, key: str) -> int:
    """Makes a call with this request id; returns its status."""
    with parley.connection() as connection:
        connection.request("POST", CHAT, json.dumps(body), parley.headers(key) | {"x-request-id": request_id})
        return connection.getresponse().status


REFUSED = {
    "an unknown path": ("GET", "/nothing?key=sk-the-query", {}, b"", 404, "UNKNOWN_METHOD", "GET /nothing"),
    "a secret in a path": (
        "GET",
        "/v1/sk-abcdefgh12345678abcdefgh",
        {},
        b"",
        404,
        "UNKNOWN_METHOD",
        "GET /v1/…",
    ),
    "a wrong method": ("PUT", CHAT, {}, b"", 405, "METHOD_NOT_ALLOWED", f"PUT {CHAT}"),
    "a body that is too large": (
        "POST",
        CHAT,
        {"content-type": "application/json", "content-length": "99000000"},
        b"",
        413,
        "REQUEST_TOO_LARGE",
        f"POST {CHAT}",
    ),
    "a wrong content type": ("POST", CHAT, {"content-type": "text/plain"}, b"{}", 415, "UNSUPPORTED_MEDIA_TYPE", None),
    "large headers": ("GET", "/v1/models", {"x-large": "b" * 20_000}, b"", 431, "HEADERS_TOO_LARGE", "GET /v1/models"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_request_has_its_line(parley: Parley, name: str) -> None:
    """A request that Envoy refuses has one line with the caller's request id, its status and its reason."""
    verb, path, headers, body, status, reason, method = REFUSED[name]
    request_id = f"id of {name}".replace(" ", "-")
    given = {"host": "a", "connection": "close", "authorization": f"Bearer {parley.key}", "x-request-id": request_id}
    given |= {"content-length": str(len(body))} | headers
    head = "".join(f"{key}: {value}\r\n" for key, value in given.items())
    answer = raw(parley, f"{verb} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    (line,) = wait_events(parley, 1, request_id=request_id)
    assert ("call", "info", status, reason, "envoy", "127.0.0.1") == tuple(
        line[field] for field in ("event", "level", "http_status", "reason", "refused_by", "client")
    )
    assert method in {None, line["method"]}
    assert "sk-" not in json.dumps(line)


def test_bytes_that_are_not_http_have_their_line(parley: Parley) -> None:
    """A request that cannot be parsed has a line, without what it sent."""
    assert raw(parley, b"SECRET-WORD\r\n\r\n").startswith(b"HTTP/1.1 400")
    (line,) = wait_events(parley, 1, cause="http1.codec_error")
    assert ("INVALID_ARGUMENT", "INVALID_REQUEST") == (line["status"], line["reason"])
    assert "SECRET-WORD" not in parley.log


def test_a_refused_rpc_has_its_line(parley: Parley) -> None:
    """An unknown method of gRPC has a line with its name."""
    metadata = (("x-request-id", "rpc-1"), ("authorization", f"Bearer {parley.key}"))
    with grpc.insecure_channel(parley.grpc) as channel:
        call: Any = channel.unary_unary("/x.Unknown/Method")
        with pytest.raises(grpc.RpcError):
            call(b"", metadata=metadata)
    (line,) = wait_events(parley, 1, request_id="rpc-1")
    assert ("UNIMPLEMENTED", "UNKNOWN_METHOD") == (line["status"], line["reason"])
    assert line["method"].startswith("POST /x.Unknown/Method")


def test_a_call_that_a_worker_receives_has_one_line(parley: Parley, upstream: ScriptedUpstream) -> None:
    """An answered call, one that the worker refuses, and one with a wrong key have the worker's line only."""
    wrong = "sk-" + "0" * 43
    bodies = [(ASK, parley.key, 200), (ASK | {"model": "none"}, parley.key, 404), (ASK, wrong, 401)]
    large = ASK | {"messages": [{"role": "user", "content": "a" * 200_000}]}
    bodies += [(large, parley.key, 200), (large, wrong, 401)]
    for number, (body, key, status) in enumerate(bodies):
        assert status == complete(parley, f"once-{number}", body, key)
    for number in range(len(bodies)):
        lines = wait_events(parley, 1, request_id=f"once-{number}")
        assert [None] == [line.get("refused_by") for line in lines]
    assert "the-prompt" not in parley.log


def test_a_failed_credential_that_envoy_finds_has_one_line(parley: Parley) -> None:
    """A malformed credential has a line with its kind and the number of failures of its address."""
    assert 401 == complete(parley, "malformed-1", ASK, "not-a-key")
    (line,) = wait_events(parley, 1, request_id="malformed-1")
    assert ("UNAUTHENTICATED", "INVALID_API_KEY", "malformed", 1) == tuple(
        line[field] for field in ("status", "reason", "credential", "failures")
    )


def test_a_flood_is_counted(parley: Parley) -> None:
    """Of a flood of refused requests some lines are written, and one with the number of the others."""
    request = b"GET /flood HTTP/1.1\r\nhost: a\r\n\r\n"
    with socket.create_connection(("127.0.0.1", urlsplit(parley.http).port or 0)) as connection:
        for _ in range(100):
            connection.sendall(request * 10)
            connection.recv(1 << 20)
        connection.sendall(b"GET /flood HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        while connection.recv(1 << 20):
            pass
    wait_events(parley, 1, event="refused calls not logged")
    omitted = sum(event["calls"] for event in events(parley, event="refused calls not logged"))
    assert omitted >= 500
    assert len(events(parley, method="GET /flood")) <= 500


def test_no_line_is_at_the_level_error_for_a_caller_s_mistake(parley: Parley) -> None:
    """The tests above write no line at the level of an error, and no line of Envoy's own about a call."""
    assert [] == events(parley, level="error")
    assert "script log" not in parley.log


def test_a_call_whose_worker_is_lost_has_its_line(parley: Parley, upstream: ScriptedUpstream) -> None:
    """A worker that is killed writes no line of its call, so that Envoy's is there, as a warning."""
    upstream.answer(Events([*chunks("Hel"), Stall()]))
    (worker,) = parley.workers()
    headers = parley.headers() | {"x-request-id": "lost-1"}
    with parley.connection() as connection:
        connection.request("POST", CHAT, json.dumps(ASK | {"stream": True}), headers)
        response = connection.getresponse()
        response.readline()  # the stream has begun
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(IncompleteRead) as cut:  # Envoy calls no filter that could add an event
            response.read()
        assert cut.value.partial.endswith(b"\n\n")
        assert b'"error"' not in cut.value.partial
    (line,) = wait_events(parley, 1, request_id="lost-1")
    assert ("UNAVAILABLE", "WORKER_LOST", "warning", "envoy") == tuple(
        line[field] for field in ("status", "reason", "level", "refused_by")
    )
