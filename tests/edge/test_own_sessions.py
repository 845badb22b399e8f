"""Titles, labels, searches, added messages, exports and imports of sessions through the edge."""

from typing import Any

import aiohttp
import pytest
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.json_format import ParseDict
from yarl import URL

from parley.v1 import sessions_pb2 as messages
from tests.edge.worker import Worker

pytestmark = pytest.mark.asyncio(loop_scope="session")

_ID = "order 4711/2: a?b"
_PATH = "/api/v1/sessions/order%204711%2F2%3A%20a%3Fb"
_LARGE = "x" * 300_000


@pytest.mark.parametrize("prefix", ["", "/upchatty", "/fastapi", "/openpipe"])
async def test_title_and_labels_reach_the_service(client: aiohttp.ClientSession, worker: Worker, prefix: str) -> None:
    """A PATCH changes the session of the path, whatever characters its id has."""
    body: dict[str, Any] = {"title": "Order", "labels": {"team": "blue", "draft": None}}
    async with client.patch(prefix + _PATH, json=body) as response:
        assert (200, _ID) == (response.status, (await response.json())["id"])
    assert ParseDict({"chatSessionId": _ID, **body}, messages.UpdateSessionRequest()) == worker.request


async def test_added_content_is_exact(client: aiohttp.ClientSession, worker: Worker) -> None:
    """Parts with large numbers and own fields arrive as text in their order."""
    content = '[{"type":"text","text":"q","z":9007199254740993,"a":{"y":1.50,"b":[12345678901234567890123]}}]'
    body = f'{{"messages":[{{"role":"user","content":{content}}}]}}'
    headers = {"content-type": "application/json"}
    async with client.post(f"{_PATH}/messages", data=body, headers=headers) as response:
        assert 200 == response.status
    assert f'{{"content":{content}}}' == worker.request.messages[0].extra_json


async def test_search_reaches_the_service(client: aiohttp.ClientSession, worker: Worker) -> None:
    """The query and each label become fields of the list."""
    async with client.get("/api/v1/sessions?query=refund+order&labels=team%3Dblue&labels=open") as response:
        assert 200 == response.status
    assert messages.ListSessionsRequest(query="refund order", labels=["team=blue", "open"]) == worker.request


async def test_a_plus_is_a_space_in_queries_only(client: aiohttp.ClientSession, worker: Worker) -> None:
    """A plus in a path is part of the id, and an encoded one in a query is a plus."""
    async with client.get(URL("/api/v1/sessions/a+b", encoded=True)) as response:
        assert (200, "a+b") == (response.status, worker.request.session_id)
    async with client.get(URL("/api/v1/sessions?query=c%2B%2B+code", encoded=True)) as response:
        assert (200, "c++ code") == (response.status, worker.request.query)


@pytest.mark.parametrize("text", ["By phone", _LARGE])
async def test_added_messages_reach_the_service(client: aiohttp.ClientSession, worker: Worker, text: str) -> None:
    """Messages arrive with their unknown fields, also in a large body."""
    body = {"messages": [{"role": "user", "content": text, "own": [1]}], "model": "m", "metadata": {"by": "ann"}}
    async with client.post(f"{_PATH}/messages", json=body) as response:
        assert (200, {"chatSessionId": _ID, "turn": 1}) == (response.status, await response.json())
    sent = worker.request
    assert (_ID, "m", {"by": "ann"}) == (sent.session_id, sent.model, dict(sent.metadata))
    assert (text, '{"own": [1]}') == (sent.messages[0].content.string_value, sent.messages[0].extra_json)


@pytest.mark.parametrize("size", [10, 500_000])
async def test_an_import_reaches_the_service_unchanged(
    client: aiohttp.ClientSession, worker: Worker, size: int
) -> None:
    """The body of an import reaches the service unchanged, whatever its type."""
    data = b'{"id":"s"}\n' * (size // 10)
    headers = {"content-type": "application/jsonl"}
    async with client.post("/api/v1/account/import", data=data, headers=headers) as response:
        assert (200, {"imported": size // 10, "skipped": 0}) == (response.status, await response.json())
    expected = HttpBody(content_type="application/jsonl", data=data)
    assert messages.ImportSessionsRequest(body=expected) == worker.request


async def test_an_export_of_an_account_is_a_file_of_lines(client: aiohttp.ClientSession, worker: Worker) -> None:
    """An export has the type of JSON Lines and a file name; its filter is a model."""
    async with client.get("/api/v1/account/export?model=m") as response:
        assert b'{"id":"s"}\n' == await response.read()
    assert messages.ExportSessionsRequest(model="m") == worker.request
    assert 'attachment; filename="sessions.jsonl"' == response.headers["content-disposition"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/api/v1/sessions/s", "GET, PATCH, DELETE"),
        ("PUT", "/api/v1/sessions/s/messages", "GET, POST"),
        ("POST", "/api/v1/account/export", "GET"),
        ("GET", "/api/v1/account/import", "POST"),
    ],
)
async def test_other_methods(client: aiohttp.ClientSession, method: str, path: str, allowed: str) -> None:
    """Another method is 405 and names those that exist."""
    async with client.request(method, path) as response:
        assert (405, allowed) == (response.status, response.headers["allow"])
