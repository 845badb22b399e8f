"""Sessions through the edge: the parts of a URL and a body that reach the service, and exports of REST clients."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import grpc
import pytest
from google.api.httpbody_pb2 import HttpBody

from parley.v1.sessions_pb2 import ExportSessionRequest, ForkSessionRequest, ListSessionsRequest
from tests.edge.errors import message_of
from tests.edge.worker import Context, Worker

pytestmark = pytest.mark.asyncio(loop_scope="session")

SESSIONS = "/api/v1/sessions"
PREFIXES = {"chipp": "", "upchatty": "/upchatty", "fastapi": "/fastapi", "openpipe": "/openpipe"}


async def test_filters_reach_the_list(client: aiohttp.ClientSession, worker: Worker) -> None:
    """Each parameter of the query becomes its field, zero included."""
    query = "page_size=3&page_token=t&model=a%2Fb&updated_after=0&updated_before=1699451240"
    async with client.get(f"{SESSIONS}?{query}") as response:
        assert 200 == response.status
    expected = ListSessionsRequest(page_size=3, page_token="t", model="a/b", updated_after=0, updated_before=1699451240)
    assert expected == worker.request


@pytest.mark.parametrize(
    ("arguments", "through_turn"),
    [
        ({}, None),
        ({"skip_auto_headers": ["content-type"]}, None),
        ({"json": {}}, None),
        ({"json": {"through_turn": None}}, None),
        ({"json": {"through_turn": 3}}, 3),
        ({"data": b'{"through_turn": 3}', "skip_auto_headers": ["content-type"]}, 3),
        ({"json": {"through_turn": 3, "chatSessionId": "other"}}, 3),
    ],
)
async def test_a_fork_needs_no_body(
    client: aiohttp.ClientSession, worker: Worker, arguments: dict[str, Any], through_turn: int | None
) -> None:
    """The body of a fork may be absent, an empty object or a turn; only the path names the session."""
    async with client.post(f"{SESSIONS}/mine/fork?through_turn=9&session_id=other", **arguments) as response:
        assert (200, "mine") == (response.status, (await response.json())["forked_from"])
    assert ForkSessionRequest(session_id="mine", through_turn=through_turn) == worker.request


async def test_a_fork_s_body_cannot_name_another_session(client: aiohttp.ClientSession, worker: Worker) -> None:
    """Different session ids in path and body are rejected."""
    async with client.post(f"{SESSIONS}/mine/fork", json={"session_id": "other"}) as response:
        expected = {"error": "`session_id` differs from that of the path; leave it out"}
        assert (400, expected) == (response.status, await response.json())
    assert [] == worker.calls


async def test_a_duplicate_parameter_is_rejected(client: aiohttp.ClientSession, worker: Worker) -> None:
    """A duplicate parameter is rejected."""
    async with client.get("/api/v1/sessions?page_size=1&page_size=2") as response:
        assert (400, {"error": "`page_size` is given twice"}) == (response.status, await response.json())
    assert [] == worker.calls


async def test_an_export_is_a_file_of_lines(client: aiohttp.ClientSession, worker: Worker) -> None:
    """The parts of an export are sent unchanged, with the type of JSON Lines and a file name."""
    async with client.get(f"{SESSIONS}/mine/export?session_id=other") as response:
        assert b'{"role":"user","turn":1}\n{"role":"assistant","turn":1}\n' == await response.read()
    assert ExportSessionRequest(session_id="mine") == worker.request
    assert "application/jsonl" == response.headers["content-type"]
    assert 'attachment; filename="mine.jsonl"' == response.headers["content-disposition"]
    assert "mine" == response.headers["x-chat-session-id"]


async def test_an_empty_export_is_an_empty_file(client: aiohttp.ClientSession, worker: Worker) -> None:
    """An empty export is neither an error nor JSON."""

    async def export(_request: ExportSessionRequest, _context: Context) -> AsyncIterator[HttpBody]:
        yield HttpBody(content_type="application/jsonl")

    worker.export = export
    async with client.get(f"{SESSIONS}/mine/export") as response:
        assert (200, b"") == (response.status, await response.read())
        assert "application/jsonl" == response.headers["content-type"]


@pytest.mark.parametrize("dialect", PREFIXES)
async def test_an_export_that_fails_before_its_first_byte_is_an_error(
    client: aiohttp.ClientSession, worker: Worker, dialect: str
) -> None:
    """A failed export has the status and the format of any other error, and no file name."""

    async def export(_request: ExportSessionRequest, context: Context) -> AsyncIterator[HttpBody]:
        trailing = (("parley-error-reason", "SESSION_NOT_FOUND"), ("parley-error-code", "session_not_found"))
        await context.abort(grpc.StatusCode.NOT_FOUND, 'Unknown session "mine"', trailing)
        yield HttpBody()

    worker.export = export
    async with client.get(f"{PREFIXES[dialect]}{SESSIONS}/mine/export") as response:
        assert (404, "application/json") == (response.status, response.headers["content-type"])
        assert "content-disposition" not in response.headers
        assert 'Unknown session "mine"' == message_of(dialect, await response.json())


async def test_an_export_that_fails_later_has_the_error_in_its_last_line(
    client: aiohttp.ClientSession, worker: Worker
) -> None:
    """An export that fails after its first byte ends with a line that contains the error."""

    async def export(_request: ExportSessionRequest, context: Context) -> AsyncIterator[HttpBody]:
        yield HttpBody(content_type="application/jsonl", data=b'{"role":"user","turn":1}\n')
        yield HttpBody(content_type="application/jsonl", data=b'{"error":{"message":"gone"}}\n')
        await context.abort(grpc.StatusCode.NOT_FOUND, "gone", (("parley-error-reason", "SESSION_NOT_FOUND"),))

    worker.export = export
    async with client.get(f"{SESSIONS}/mine/export") as response:
        assert b'{"role":"user","turn":1}\n{"error":{"message":"gone"}}\n' == await response.read()
