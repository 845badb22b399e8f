"""Row 22 of the security probe: unusual paths, hosts, expectations, lengths and headers, at the level of bytes."""

import asyncio
import json
import re
from typing import Any

import pytest

from tests.edge.conftest import Edge
from tests.edge.worker import Worker

pytestmark = pytest.mark.asyncio(loop_scope="session")

KEY = b"authorization: Bearer sk-" + b"A" * 43 + b"\r\n"
BODY = b'{"model":"m","messages":[{"role":"user","content":"Hi"}]}'
CHAT = "/v1/chat/completions"
LENGTH = b"content-length: %d\r\n" % len(BODY)


async def exchange(edge: Edge, line: str, *fields: bytes, host: bytes = b"host: x\r\n", body: bytes = b"") -> Any:
    """Sends a request; returns the status and the message of the last response, or its JSON."""
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    writer.write(
        line.encode() + b" HTTP/1.1\r\n" + host + KEY + b"connection: close\r\n" + b"".join(fields) + b"\r\n" + body
    )
    async with asyncio.timeout(60):
        head, content = await _last_response(reader)
    writer.close()
    parsed = json.loads(content) if content.startswith(b"{") else {}
    error = parsed.get("error", parsed)
    return int(head.split()[1]), error.get("message", error) if isinstance(error, dict) else error


async def _last_response(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Reads a response after any of status 100; returns its head and body. Envoy waits a second before it closes."""
    head = await reader.readuntil(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 100 "):
        return await _last_response(reader)
    length = re.search(rb"\r\ncontent-length: (\d+)\r\n", head, re.IGNORECASE)
    return head, await (reader.readexactly(int(length[1])) if length else reader.read())


@pytest.mark.parametrize(
    "path",
    [
        *(
            "//v1/models",
            "/v1//models",
            "/v1/models/",
            "/v1/models//",
            "/v1/models//m",
            "/v1/models/m/",
            "/v1/models/m//x",
        ),
        *(
            "/v1/models:json",
            "/v1/models:stream",
            "/v1/usage/",
            "/v1/usage:json",
            "/api//v1/sessions",
            "/api/v1/sessions/",
        ),
        *("/api/v1/sessions//", "/api/v1/sessions:x", "/api/v1/sessions/s/", "/api/v1/sessions/s/messages:json"),
        *("/api/v1/sessions/s/messages/", "/api/v1/sessions//messages", "/api/v1/sessions/s/export:stream"),
        *("/openapi.json/", "/livez/", "//livez", "/healthz:x", "/readyz/"),
    ],
)
async def test_no_path_has_a_second_spelling(edge: Edge, worker: Worker, path: str) -> None:
    """Custom verbs, doubled slashes and slashes at the end are unknown URLs on every route."""
    status, message = await exchange(edge, f"GET {path}")
    assert (404, f"Unknown request URL: GET {path}") == (status, message.partition(";")[0])
    assert [] == worker.calls


@pytest.mark.parametrize(
    "path",
    [
        *(f"{CHAT}:stream", f"{CHAT}:json", f"{CHAT}/", f"{CHAT}//", "/v1//chat/completions", f"/api{CHAT}:stream"),
        *("/api/v1/sessions/s/fork:json", "/api/v1/sessions/s/fork/", "/api/v1/sessions//fork"),
    ],
)
async def test_no_path_of_a_post_has_a_second_spelling(edge: Edge, worker: Worker, path: str) -> None:
    """The same for the routes that have a body."""
    status, message = await exchange(edge, f"POST {path}", b"content-type: application/json\r\n", LENGTH, body=BODY)
    assert (404, f"Unknown request URL: POST {path}") == (status, message.partition(";")[0])
    assert [] == worker.calls


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "OPTIONS", "PATCH", "FOO", "get", "PRI"])
async def test_other_methods_are_rejected(edge: Edge, worker: Worker, method: str) -> None:
    """Methods of other purposes, unknown ones and those in small letters reach no worker."""
    assert (await exchange(edge, f"{method} /v1/models"))[0] in {400, 405}
    assert [] == worker.calls


@pytest.mark.parametrize(
    "host", [b"host: a\r\nhost: b\r\n", b"host: a\r\nhost: a\r\n", b"host: a,b\r\n", b"", b"host: a b\r\n"]
)
async def test_a_request_has_one_host(edge: Edge, worker: Worker, host: bytes) -> None:
    """A request without a host, with two, or with one that is not a host, is a 400."""
    assert 400 == (await exchange(edge, "GET /v1/models", host=host))[0]
    assert [] == worker.calls


@pytest.mark.parametrize(
    ("fields", "statuses"),
    [
        ([LENGTH, b"transfer-encoding: chunked\r\n"], {400}),
        ([LENGTH, LENGTH], {400}),
        ([LENGTH, b"content-length: 5\r\n"], {400}),
        ([b"content-length: 5, 5\r\n"], {400}),
        ([b"content-length: +57\r\n"], {400}),
        ([b"content-length: -1\r\n"], {400}),
        ([b"transfer-encoding: gzip, chunked\r\n"], {400, 501}),
        ([b"transfer-encoding: xchunked\r\n"], {400, 501}),
        ([b"transfer-encoding: chunked\r\n", b"transfer-encoding: chunked\r\n"], {400, 501}),
    ],
)
async def test_a_body_has_one_length(edge: Edge, worker: Worker, fields: list[bytes], statuses: set[int]) -> None:
    """A body whose length is given twice, or in a form that a proxy may read in another way, is rejected."""
    fields = [b"content-type: application/json\r\n", *fields]
    assert (await exchange(edge, f"POST {CHAT}", *fields, body=BODY))[0] in statuses
    assert [] == worker.calls


async def test_expectations(edge: Edge, worker: Worker) -> None:
    """A body that is too large is a 413 although the client expects to continue; other expectations are a 417."""
    json_type = b"content-type: application/json\r\n"
    large = (json_type, b"expect: 100-continue\r\n", b"content-length: 100000000\r\n")
    assert (413, "The request body is larger than 8 MiB") == await exchange(edge, f"POST {CHAT}", *large)
    for expectation in (b"200-maybe", b"100-continue, x"):
        status, message = await exchange(
            edge, f"POST {CHAT}", json_type, LENGTH, b"expect: " + expectation + b"\r\n", body=BODY
        )
        assert (417, "The request has an expectation other than 100-continue") == (status, message)
    assert [] == worker.calls


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (b"".join(b"x-%d: 1\r\n" % number for number in range(110)), "The request has more than 100 headers"),
        (b"x: " + b"x" * 13_000 + b"\r\n", "The request headers are larger than 12 KiB"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/models", "/api/v1/models", "/v1/nothing"])
async def test_too_many_headers_have_words_of_their_own(edge: Edge, path: str, field: bytes, message: str) -> None:
    """The error for too many headers is not that for too large ones, on every path."""
    assert (431, message) == await exchange(edge, f"GET {path}", field)


async def test_a_long_url_is_answered(edge: Edge) -> None:
    """A URL of 70,000 bytes is a 431, not a broken connection."""
    assert 431 == (await exchange(edge, "GET /v1/models/" + "a" * 70_000))[0]


@pytest.mark.parametrize(
    "field",
    [
        b"x y: 1\r\n",
        b"xy : 1\r\n",
        b"x: a\0b\r\n",
        b"x: a\nb\r\n",
        b": a\r\n",
        b"\xc3\xa9: 1\r\n",
        b"x(: 1\r\n",
        b"x: \1\r\n",
    ],
)
async def test_headers_that_are_not_http_are_rejected(edge: Edge, worker: Worker, field: bytes) -> None:
    """Names and values with bytes that HTTP does not allow are a 400."""
    assert 400 == (await exchange(edge, "GET /v1/models", field))[0]
    assert [] == worker.calls
