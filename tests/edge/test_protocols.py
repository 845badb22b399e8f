"""Versions of HTTP, limits of headers and bodies, and the gRPC port, at the level of bytes."""

import asyncio
import http.client
import json
from typing import Any

import aiohttp
import grpc
import pytest

from parley.v1.models_pb2 import ListModelsRequest
from parley.v1.models_pb2_grpc import ModelsStub
from tests.edge.conftest import AUTHORIZATION, Edge, channel_to
from tests.edge.worker import Worker

pytestmark = pytest.mark.asyncio(loop_scope="session")

CHAT = "/v1/chat/completions"
REQUEST = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


async def curl(*arguments: str) -> str:
    """Runs curl and returns its output."""
    command = ("curl", "--silent", "--show-error", "--max-time", "20", "--oauth2-bearer", "sk-1", *arguments)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    return (await process.communicate())[0].decode()


async def send_request(port: int, request: bytes) -> tuple[int, bytes]:
    """Sends bytes and reads to the end of the connection; returns the last status and its body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    async with asyncio.timeout(60):
        answer = await reader.read()
    writer.close()
    head, _, body = answer.rpartition(b"\r\n\r\n") if b"data:" not in answer else answer.partition(b"\r\n\r\n")
    return int(head.rpartition(b"HTTP/1.")[2].split()[1]), body


# --------------------------------------------------------------------------------------------------------- HTTP/1.0


@pytest.mark.parametrize("host", [b"", b"Host: example.com\r\n"])
@pytest.mark.parametrize("stream", [False, True])
async def test_http_1_0_is_served(edge: Edge, worker: Worker, host: bytes, *, stream: bool) -> None:
    """HTTP/1.0, the default of nginx's proxy_pass, is served; a stream ends with the connection."""
    body = json.dumps(REQUEST | {"stream": stream}).encode()
    head = b"Authorization: Bearer sk-1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
    status, answer = await send_request(
        edge.port, b"POST %s HTTP/1.0\r\n%s%s\r\n%s" % (CHAT.encode(), host, head, body)
    )
    assert 200 == status
    if stream:
        assert b'data: {"id":"chatcmpl-1"}\n\ndata: [DONE]\n\n' == answer
    else:
        assert "chatcmpl-1" == json.loads(answer)["id"]


@pytest.mark.parametrize("stream", [False, True])
async def test_curl_speaks_http_1_0(edge: Edge, worker: Worker, *, stream: bool) -> None:
    """`curl -0` gets a response."""
    answer = await curl("-0", "--json", json.dumps(REQUEST | {"stream": stream}), edge.http + CHAT)
    assert ("data: [DONE]" in answer) if stream else ("chatcmpl-1" == json.loads(answer)["id"])


# ------------------------------------------------------------------------------------------------- headers and bodies


async def test_two_hosts_are_refused(edge: Edge, worker: Worker) -> None:
    """RFC 9112, 3.2: a request with two Host headers is a 400."""
    request = b"GET /v1/models HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n"
    status, body = await send_request(edge.port, request)
    assert (400, "The request must have one Host header") == (status, json.loads(body)["error"]["message"])
    assert [] == worker.calls


@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
async def test_large_headers_are_answered_in_both_versions(edge: Edge, version: str) -> None:
    """HTTP/2 callers get a 431 in their dialect too, not a reset stream."""
    answer = await curl(version, "-H", "x: " + "x" * 13_000, edge.http + "/v1/models")
    assert "headers_too_large" == json.loads(answer)["error"]["code"]


@pytest.mark.parametrize("size", [9_000_000, 30_000_000])
async def test_a_client_that_only_writes_first_receives_the_413(edge: Edge, worker: Worker, size: int) -> None:
    """A client that reads only after it has written its request gets the 413, not a broken connection."""

    def post() -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", edge.port, timeout=60)
        connection.request("POST", CHAT, b"x" * size, AUTHORIZATION | {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())["error"]["message"]

    assert (413, "The request body is larger than 8 MiB") == await asyncio.to_thread(post)
    assert [] == worker.calls


async def test_a_very_large_body_is_refused_before_it_is_sent(edge: Edge) -> None:
    """A client that waits for `100 Continue` sends nothing of 100 MB."""
    head = f"POST {CHAT} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer sk-1\r\nExpect: 100-continue\r\n"
    head += "Content-Type: application/json\r\n"
    status, body = await send_request(edge.port, f"{head}Content-Length: 100000000\r\n\r\n".encode())
    assert (413, "request_too_large") == (status, json.loads(body)["error"]["code"])


@pytest.mark.parametrize("model", ["ok:stream", "llama3:8b", "org/m:stream"])
async def test_a_model_s_id_may_have_colons(client: aiohttp.ClientSession, worker: Worker, model: str) -> None:
    """A custom verb of the transcoder at the end of an id is part of the id."""
    async with client.get(f"/v1/models/{model}") as response:
        assert (200, model) == (response.status, (await response.json())["id"])


# ----------------------------------------------------------------------------------------------------- the gRPC port


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ([("x", "x" * 13_000)], "The request headers are larger than 12 KiB"),
        ([("x", "x" * 60_000)], "The request headers are larger than 12 KiB"),
        ([(f"x{number}", "1") for number in range(120)], "The request has more than 100 headers"),
    ],
)
async def test_large_metadata_is_resource_exhausted(
    edge: Edge, worker: Worker, metadata: list[tuple[str, str]], expected: str
) -> None:
    """Too large headers fail as in gRPC's own servers, with the limit in the message, and the connection stays open."""
    async with channel_to(edge.grpc) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await ModelsStub(channel).ListModels(ListModelsRequest(), metadata=metadata)
        assert grpc.StatusCode.RESOURCE_EXHAUSTED == failed.value.code()
        assert expected in (failed.value.details() or "")
        await ModelsStub(channel).ListModels(ListModelsRequest(), metadata=[("x", "x" * 10_000)])
    assert ["ListModels"] == worker.calls


@pytest.mark.parametrize("version", ["-0", "--http1.1", "--http2-prior-knowledge"])
@pytest.mark.parametrize("header", ["accept: */*", "content-type: application/json"])
async def test_the_grpc_port_names_itself_to_http_clients(
    edge: Edge, worker: Worker, version: str, header: str
) -> None:
    """An HTTP client on the gRPC port gets one line that names the REST port."""
    answer = await curl(version, "-w", "%{http_code}", "-H", header, f"http://{edge.grpc}/v1/models")
    assert "This port speaks gRPC" in answer
    assert answer.endswith("400")
    assert [] == worker.calls
