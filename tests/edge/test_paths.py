"""Paths of the REST listener, and attempts to bypass them by paths, headers or protocols."""

import asyncio
import stat
from typing import Any

import aiohttp
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from parley.v1.models_pb2 import GetModelRequest, ListModelsRequest
from parley.v1.models_pb2_grpc import ModelsStub
from parley.v1.sessions_pb2 import GetSessionRequest, ListSessionMessagesRequest, ListSessionsRequest
from parley.v1.sessions_pb2_grpc import SessionsStub
from parley.v1.usage_pb2 import GetUsageReportRequest
from tests.edge.conftest import Edge, channel_to
from tests.edge.worker import Worker

pytestmark = pytest.mark.asyncio(loop_scope="session")

HEALTH = "/grpc.health.v1.Health/Check"
CREATE = "/parley.v1.ChatCompletions/CreateChatCompletion"
ADMIN = "/parley.admin.v1.Keys/ListKeys"
EMPTY: Any = b""
PREFIXES = ["", "/upchatty", "/fastapi", "/openpipe"]
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


@pytest.mark.parametrize(
    ("method", "path", "call"),
    [
        ("GET", "/v1/models", "ListModels"),
        ("GET", "/api/v1/models?x=1", "ListModels"),
        ("GET", "/v1/models/m", "GetModel"),
        ("GET", "/api/v1/models/m", "GetModel"),
        ("GET", "/v1/usage", "GetUsageReport"),
        ("GET", "/api/v1/usage?by=day", "GetUsageReport"),
        ("GET", "/api/v1/sessions", "ListSessions"),
        ("GET", "/api/v1/sessions/s", "GetSession"),
        ("GET", "/api/v1/sessions/s/messages?page_size=3", "ListSessionMessagesJson"),
        ("GET", "/api/v1/sessions/s/export", "ExportSession"),
        ("POST", "/api/v1/sessions/s/fork", "ForkSession"),
        ("DELETE", "/api/v1/sessions/s", "DeleteSession"),
    ],
)
async def test_every_listed_path_reaches_its_method(
    client: aiohttp.ClientSession, worker: Worker, method: str, path: str, call: str
) -> None:
    """Each path calls its RPC, under every dialect's prefix."""
    prefixes = PREFIXES if path.startswith("/api/") else [""]
    for prefix in prefixes:
        async with client.request(method, prefix + path) as response:
            assert 200 == response.status
    assert [call] * len(prefixes) == worker.calls


async def test_the_parts_of_a_path_and_query_reach_the_request(client: aiohttp.ClientSession, worker: Worker) -> None:
    """Ids and parameters become fields; a model's id may contain slashes, plain or encoded."""
    async with client.get("/api/v1/sessions?page_size=3&model=a%2Fb"):
        assert ListSessionsRequest(page_size=3, model="a/b") == worker.request
    for path in ("/v1/usage", "/fastapi/api/v1/usage"):
        async with client.get(f"{path}?by=day&by=key&since=2026-11-01&account=true"):
            assert GetUsageReportRequest(by=["day", "key"], since="2026-11-01", account=True) == worker.request
    for path in ("/v1/models/org/name:tag", "/v1/models/org%2Fname:tag", "/fastapi/api/v1/models/org%2Fname:tag"):
        async with client.get(_raw(client, path)):
            assert GetModelRequest(model="org/name:tag") == worker.request


async def test_a_query_does_not_override_path_and_body(client: aiohttp.ClientSession, worker: Worker) -> None:
    """Only lists have query parameters; those of other paths do not reach the service, unary or streaming."""
    async with client.get("/api/v1/sessions/mine?session_id=other&chatSessionId=other"):
        assert GetSessionRequest(session_id="mine") == worker.request
    async with client.get("/fastapi/api/v1/sessions/mine/messages?page_size=2&after_turn=3"):
        assert ListSessionMessagesRequest(session_id="mine", page_size=2, after_turn=3) == worker.request
    async with client.get("/v1/models/mine?model=other"):
        assert GetModelRequest(model="mine") == worker.request
    for stream in (False, True):
        body = {"model": "m", "stream": stream, "messages": [{"role": "user", "content": "Hi"}]}
        async with client.post("/v1/chat/completions?temperature=2&stream=true&messages.role=x", json=body) as response:
            assert 200 == response.status
        assert (stream, 1) == (worker.request.stream, len(worker.request.messages))
        assert not worker.request.HasField("temperature")


def _raw(client: aiohttp.ClientSession, path: str) -> Any:
    """Returns a URL that the client sends unchanged."""
    from yarl import URL

    return URL(f"{client._base_url}".rstrip("/") + path, encoded=True)  # noqa: SLF001 - it has no public name


def _paths(method: str) -> list[str]:
    """Yields variants of a method's path that some servers treat as the same."""
    encoded = method.replace("/", "%2F").replace("%2F", "/", 1)
    return [
        method,
        f"/{method}",
        f"{method}/",
        f"/.{method}",
        f"/v1/..{method}",
        f"/v1/models/../..{method}",
        f"/api/v1/sessions/..{method}",
        f"/api/v1/sessions/../../..{method}",
        f"/v1/%2e%2e{method}",
        encoded,
        method.replace("/", "\\"),
        "/v1" + method.replace("/", "\\"),
        f"/v1/chat/completions{method}",
        f"/v1/chat/completions/..{method}",
        f"{method}?x=/v1/models",
        f"{method}#/v1/models",
        f"{method};/v1/models",
        f"http://a{method}",
        f"/upchatty{method}",
        f"/fastapi/..{method}",
        f"/openpipe/api/v1/models/../../../..{method}",
    ]


async def _status(edge: Edge, method: str, path: str, headers: dict[str, str]) -> int:
    """Sends a request with an unnormalized path, and returns the status."""
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    lines = [f"{method} {path} HTTP/1.1", "Host: a", "Content-Length: 5", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n\0\0\0\0\0")
    status = int((await reader.readline()).split()[1])
    writer.close()
    return status


@pytest.mark.parametrize(
    "kind", ["application/grpc", "application/grpc+json", "application/grpc-web", "application/json"]
)
@pytest.mark.parametrize("name", [CREATE, ADMIN, HEALTH, REFLECTION])
async def test_no_path_leads_to_a_method_that_is_not_listed(edge: Edge, worker: Worker, kind: str, name: str) -> None:
    """Native gRPC over HTTP/1.1 reaches no method, in any variant of its path."""
    headers = {"content-type": kind, "te": "trailers"}
    statuses = {path: await _status(edge, "POST", path, headers) for path in _paths(name)}
    assert set() == {path for path, status in statuses.items() if status not in {400, 404, 405, 415}}
    assert [] == worker.calls


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/models", "/v1/usage", "/api/v1/models/m", "/api/v1/sessions/s"]
)
async def test_listed_paths_reject_native_grpc(edge: Edge, worker: Worker, method: str, path: str) -> None:
    """Native gRPC is rejected before the transcoder, which would forward it unchanged."""
    assert 415 == await _status(edge, method, path, {"content-type": "application/grpc"})
    assert [] == worker.calls


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions:stream",
        "/api/v1/chat/completions:stream",
        *(f"{prefix}/api/v1/chat/completions:stream" for prefix in PREFIXES[1:]),
        *(f"{prefix}/v1/chat/completions" for prefix in PREFIXES[1:]),
        "/openai/api/v1/chat/completions",
        "/chipp/api/v1/chat/completions",
        "/upchatty/upchatty/api/v1/chat/completions",
        "/upchatty//api/v1/chat/completions",
        "/Upchatty/api/v1/chat/completions",
        "/v1/chat/completions/",
        "//v1/chat/completions",
        "/v1//chat/completions",
        "/v1/./chat/completions",
        "/v1/x/../chat/completions",
        "/v1/chat%2Fcompletions",
        "/V1/chat/completions",
        "/v1/chat/completions%3Astream",
    ],
)
async def test_only_the_exact_path_is_completions(edge: Edge, worker: Worker, path: str) -> None:
    """A path that only resembles a route is a 404."""
    assert 404 == await _status(edge, "POST", path, {"content-type": "application/json"})
    assert [] == worker.calls


async def test_headers_cannot_change_the_method_or_the_path(client: aiohttp.ClientSession, worker: Worker) -> None:
    """Override headers of other servers and of Envoy have no effect."""
    headers = {
        "x-http-method-override": "DELETE",
        "x-envoy-original-path": CREATE,
        "x-original-url": CREATE,
        "x-rewrite-url": CREATE,
    }
    async with client.get("/api/v1/sessions/s", headers=headers) as response:
        assert 200 == response.status
    assert ["GetSession"] == worker.calls


async def test_native_grpc_over_http2_reaches_nothing_on_the_rest_listener(edge: Edge, worker: Worker) -> None:
    """A gRPC client on the REST port fails with every service, health and reflection included."""
    async with channel_to(f"127.0.0.1:{edge.port}") as channel:
        calls: list[Any] = [
            ChatCompletionsStub(channel).CreateChatCompletion(CreateChatCompletionRequest()),
            ModelsStub(channel).ListModels(ListModelsRequest()),
            SessionsStub(channel).ListSessions(ListSessionsRequest()),
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest()),
        ]
        calls += [channel.unary_unary(path)(EMPTY) for path in _paths(ADMIN) if path.startswith("/")]
        for call in calls:
            with pytest.raises(grpc.aio.AioRpcError):
                await call
        stream = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        )
        with pytest.raises(grpc.aio.AioRpcError):
            await stream.read()
    assert [] == worker.calls


async def test_the_grpc_listener_passes_every_service(edge: Edge, worker: Worker) -> None:
    """Native callers reach the services, health and reflection through the other listener."""
    async with channel_to(edge.grpc) as channel:
        answer = await ChatCompletionsStub(channel).CreateChatCompletion(CreateChatCompletionRequest(model="m"))
        assert "chatcmpl-1" == answer.id
        chunks = [c async for c in ChatCompletionsStub(channel).StreamChatCompletion(CreateChatCompletionRequest())]
        assert ["chatcmpl-1"] == [chunk.id for chunk in chunks]
        await ModelsStub(channel).ListModels(ListModelsRequest())
        await SessionsStub(channel).ListSessions(ListSessionsRequest())
        check = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert health_pb2.HealthCheckResponse.SERVING == check.status
        stream = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        )
        assert "parley.v1.ChatCompletions" in str(await stream.read())
    assert ["CreateChatCompletion", "StreamChatCompletion", "ListModels", "ListSessions"] == worker.calls


async def test_the_grpc_listener_passes_no_admin_service(edge: Edge, worker: Worker) -> None:
    """The edge does not serve the administration of keys and accounts."""
    async with channel_to(edge.grpc) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(ADMIN)(EMPTY)
    assert grpc.StatusCode.UNIMPLEMENTED == caught.value.code()


async def test_the_admin_interface_is_a_private_socket_file(edge: Edge) -> None:
    """The admin interface listens on a socket file that only its owner can open."""
    mode = edge.admin.stat().st_mode
    assert (True, 0o600) == (stat.S_ISSOCK(mode), stat.S_IMODE(mode))
