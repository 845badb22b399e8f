"""Rows 2 and 3 of the security probe: what floods may hold in Envoy and in the worker, without any clock.

The floods are those of `make probe`, made smaller. Good calls succeed meanwhile.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
import pytest_asyncio
import yaml

from parley.supervisor.edge_settings import EdgeSettings
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from parley.v1.models_pb2 import ListModelsRequest
from parley.v1.models_pb2_grpc import ModelsStub
from tests.edge import conftest
from tests.edge.conftest import Edge, until
from tests.edge.security.probe import floods, keyed, sending
from tests.edge.security.probe.floods import Flood
from tests.edge.security.probe.http2 import Connection
from tests.edge.security.probe.memory import MIB, resident
from tests.edge.security.probe.sending import Target
from tests.edge.test_workers import subfolder
from tests.edge.worker import Worker

pytestmark = pytest.mark.asyncio(loop_scope="session")

HEAP = 256 * MIB
MAX_ENVOY_BYTES = 160 * MIB
KEY = sending.authorization("sk-" + "A" * 43)


def target(edge: Edge) -> Target:
    """Returns the addresses of the edge, with a key of the right form."""
    return Target(edge.http.removeprefix("http://"), edge.grpc, "sk-" + "A" * 43)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def edge(the_worker: tuple[Worker, Path], run_dir: Path) -> AsyncIterator[Edge]:
    """One Envoy for all tests of this file, with room for more than the large bodies of one caller.

    A client that does not read a file is disconnected after a second.
    """
    settings = EdgeSettings(max_heap=HEAP, threads=2)
    async with conftest.started(run_dir, [the_worker[1]], settings, change=_impatient) as running:
        yield running


def _impatient(rendered: str) -> str:
    return rendered.replace("idle_timeout: 5s\n", "idle_timeout: 1s\n").replace(
        "flush_timeout: 5s\n", "flush_timeout: 1s\n"
    )


async def call(edge: Edge) -> None:
    """Makes a good call on each listener, on new connections; raises if one fails."""
    async with aiohttp.ClientSession(edge.http, headers=dict([KEY])) as session, session.get("/v1/models") as response:
        assert 200 == response.status, await response.text()
    async with grpc.aio.insecure_channel(edge.grpc, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        await ModelsStub(channel).ListModels(ListModelsRequest(), metadata=[KEY])


async def shed(edge: Edge) -> int:
    """Returns how many connections and calls Envoy has rejected because of its memory."""
    points = (
        "http1_server_abort_dispatch",
        "http2_server_go_away_and_close_on_dispatch",
        "http_downstream_filter_check",
    )
    return sum([await edge.stat(f"overload.envoy.load_shed_points.{point}.shed_load_count") for point in points])


async def flooded(edge: Edge) -> int:
    """Returns what a flood has sent, in MiB, or how many requests of it were rejected, whatever is more."""
    sent = [await edge.stat(f"http.{listener}.downstream_cx_rx_bytes_total") for listener in ("http", "grpc")]
    return max(sum(sent) // MIB, await edge.stat("http.http.downstream_rq_4xx"))


async def large_call(edge: Edge) -> None:
    """Makes a call of 1 MiB with a key of its own on each listener; raises if one fails."""
    text, authorization = "x" * MIB, ("authorization", "Bearer sk-other")
    body = {"model": "m", "messages": [{"role": "user", "content": text}]}
    async with (
        aiohttp.ClientSession(edge.http) as session,
        session.post(sending.CHAT, json=body, headers=dict([authorization])) as response,
    ):
        assert 200 == response.status, await response.text()
    request = CreateChatCompletionRequest(model="m")
    request.messages.add(role="user").content.string_value = text
    async with grpc.aio.insecure_channel(edge.grpc, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        await ChatCompletionsStub(channel).CreateChatCompletion(request, metadata=[authorization])


@pytest.mark.parametrize(
    ("flood", "amount"), [(keyed.keyed_streams, 150), (keyed.keyed_calls, 150), (keyed.keyed_bodies, 20)]
)
async def test_unfinished_bodies_do_not_fill_the_memory(edge: Edge, worker: Worker, flood: Flood, amount: int) -> None:
    """Sixty bodies of 8 MiB that do not end: each of Envoy's threads keeps one, and serves others as before."""
    before, rejected, most = await flooded(edge), await shed(edge), 0
    running = asyncio.ensure_future(flood(target(edge)))
    try:

        async def is_flooded() -> bool:
            nonlocal most
            most = max(most, resident(edge.process.pid))
            return await flooded(edge) >= before + amount

        await until(is_flooded)
        await call(edge)
        await large_call(edge)
    finally:
        running.cancel()
        await asyncio.wait({running})
    assert most < MAX_ENVOY_BYTES
    assert rejected == await shed(edge)
    assert ["ListModels", "ListModels", "CreateChatCompletionJson", "CreateChatCompletion"] == worker.calls
    await until(lambda: _is_calm(edge))


async def _is_calm(edge: Edge) -> bool:
    """Returns whether the callers have gone, and Envoy's memory with them."""
    connections = [await edge.stat(f"http.{listener}.downstream_cx_active") for listener in ("http", "grpc")]
    pressure = await edge.stat("overload.envoy.load_shed_points.http1_server_abort_dispatch.scale_percent")
    return [0, 0] == connections and pressure == 0


async def test_streams_of_headers_alone_end(run_dir: Path, the_worker: tuple[Worker, Path]) -> None:
    """gRPC streams without a message end after the time for a request; none reaches the worker."""
    the_worker[0].reset()

    def hurry(rendered: str) -> str:
        return rendered.replace("request_timeout: 60s", "request_timeout: 3s")

    async with conftest.started(subfolder(run_dir, "alone"), [the_worker[1]], drain="0.1s", change=hurry) as edge:
        connection = await Connection.open(edge.grpc)
        assert 100 == connection.max_streams
        begun = {connection.request(sending.grpc_headers(target(edge), KEY)) for _ in range(100)}

        async def have_ended() -> bool:
            return connection.ended >= begun

        await until(have_ended)
        await call(edge)
        await connection.close()
    assert ["ListModels", "ListModels"] == the_worker[0].calls


async def test_silent_connections_are_closed(run_dir: Path, the_worker: tuple[Worker, Path]) -> None:
    """Connections to both listeners that send nothing, or no more than the preface of HTTP/2, are closed."""

    def hurry(rendered: str) -> str:
        for name in ("listener_filters_timeout: 10s", " idle_timeout: 300s"):
            rendered = rendered.replace(name, name.split(":")[0] + ": 0.5s")
        return rendered

    async with conftest.started(subfolder(run_dir, "silent"), [the_worker[1]], drain="0.1s", change=hurry) as edge:
        silent = [await asyncio.open_connection("127.0.0.1", int(edge.grpc.rpartition(":")[2])) for _ in range(20)]
        silent += [await asyncio.open_connection("127.0.0.1", edge.port) for _ in range(20)]
        idle = [await Connection.open(address) for address in (edge.grpc, target(edge).rest) for _ in range(20)]
        async with asyncio.timeout(60):
            assert {b""} == {await reader.read() for reader, _ in silent}
            for connection in idle:
                await connection.closed.wait()
        for _, writer in silent:
            writer.close()


async def test_a_reset_flood_ends_its_connection(edge: Edge, worker: Worker) -> None:
    """A connection that resets its streams as soon as they have begun is closed after two hundred of them."""
    connection = await Connection.open(edge.grpc)
    while not connection.closed.is_set():
        connection.reset(connection.request(sending.grpc_headers(target(edge), KEY)))
        await asyncio.sleep(0)
    await connection.close()
    await call(edge)


async def test_a_reflection_call_has_a_limit(edge: Edge, worker: Worker) -> None:
    """The questions of a reflection call are not buffered, and are cut off at 256 KiB: the worker collects no more."""
    connection = await Connection.open(edge.grpc)
    path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
    stream = connection.request(sending.grpc_headers(target(edge), path=path))
    assert not await connection.send_body(stream, b"\0" + (8 * MIB).to_bytes(4, "big") + bytes(4 * MIB))
    await connection.close()


async def test_a_listener_s_connections_have_a_limit(run_dir: Path, the_worker: tuple[Worker, Path]) -> None:
    """A listener with all its connections in use closes further ones; the other listener serves."""

    def limit(rendered: str) -> str:
        return rendered.replace("listener.grpc.connection_limit: 8000", "listener.grpc.connection_limit: 3")

    async with conftest.started(subfolder(run_dir, "many"), [the_worker[1]], drain="0.1s", change=limit) as edge:
        held = [await Connection.open(edge.grpc) for _ in range(3)]
        refused = await Connection.open(edge.grpc)
        assert refused.closed.is_set()
        async with aiohttp.ClientSession(edge.http, headers=dict([KEY])) as session, session.get("/v1/models") as page:
            assert 200 == page.status
        for connection in held:
            await connection.close()


@pytest.mark.parametrize("action", ["http_downstream_filter_check", "stop_accepting_requests", "http1_server"])
async def test_overload_is_a_503_in_the_dialect(run_dir: Path, the_worker: tuple[Worker, Path], action: str) -> None:
    """A rejection because of the memory is a 503 with `retry-after` in the dialect, and UNAVAILABLE over gRPC."""

    def always(rendered: str) -> str:
        config: Any = yaml.safe_load(rendered)
        manager = config["overload_manager"]
        for kind in ("actions", "loadshed_points"):
            manager[kind] = [entry for entry in manager[kind] if action in entry["name"]]
        manager["resource_monitors"][1]["typed_config"]["max_heap_size_bytes"] = 1
        return yaml.safe_dump(config, sort_keys=False)

    async with conftest.started(
        subfolder(run_dir, action[:6] + action[-6:]), [the_worker[1]], drain="0.1s", change=always
    ) as edge:
        await until(lambda: _is_overloaded(edge))
        error = "The service is not available; try again later"
        rich = {"message": error, "type": "server_error", "param": None, "code": "service_unavailable"}
        bodies = {
            "/v1/models": {"error": rich},
            "/api/v1/models": {"error": error},
            "/upchatty/api/v1/models": {"error": error},
            "/fastapi/api/v1/models": {"detail": error},
            "/openpipe/api/v1/models": {"error": rich},
        }
        async with aiohttp.ClientSession(edge.http, headers=dict([KEY])) as session:
            for path, body in bodies.items():
                async with session.get(path) as response:
                    assert (503, "1") == (response.status, response.headers["retry-after"])
                    assert "nosniff" == response.headers["x-content-type-options"]
                    # HTTP/1 is rejected before the path is read.
                    assert ({"error": error} if action == "http1_server" else body) == await response.json()
        if action != "http1_server":
            async with grpc.aio.insecure_channel(edge.grpc) as channel:
                with pytest.raises(grpc.aio.AioRpcError) as failed:
                    await ModelsStub(channel).ListModels(ListModelsRequest(), metadata=[KEY])
            assert grpc.StatusCode.UNAVAILABLE == failed.value.code()
            assert "The service is overloaded; the call did not begin, try again" == failed.value.details()
            assert ("grpc-retry-pushback-ms", "1000") in tuple(failed.value.trailing_metadata() or ())


async def _is_overloaded(edge: Edge) -> bool:
    """Returns whether the pressure has reached Envoy's threads: a first call is rejected."""
    async with aiohttp.ClientSession(edge.http, headers=dict([KEY])) as session:
        statuses = []
        for _ in range(4):  # on connections of both threads
            async with session.get("/v1/models", headers={"connection": "close"}) as response:
                statuses.append(response.status)
    return {503} == set(statuses)


async def fetched(edge: Edge, path: str, source: str = "127.0.0.1") -> tuple[int, str | None]:
    """Requests a static file from an address; returns the status, and when to try again."""
    connector = aiohttp.TCPConnector(local_addr=(source, 0))
    async with aiohttp.ClientSession(edge.http, connector=connector) as session, session.get(path) as response:
        assert await response.read()
        return response.status, response.headers.get("retry-after")


async def test_unread_files_do_not_fill_the_memory(edge: Edge) -> None:
    """A client that does not read static files soon gets no more of them; other addresses do, and calls are served."""
    before, most, refused = await edge.stat("http.http.downstream_rq_4xx"), 0, 900
    running = asyncio.ensure_future(floods.unread_files(target(edge), connections=10))
    try:

        async def is_flooded() -> bool:
            nonlocal most
            most = max(most, resident(edge.process.pid))
            return await edge.stat("http.http.downstream_rq_4xx") >= before + refused

        await until(is_flooded)
        status, wait = await fetched(edge, "/", sending.STRANGER)
        assert (429, True) == (status, 0 < int(wait or 0) < 120)
        assert [(200, None)] * 3 == [await fetched(edge, path) for path in ("/", "/docs/", "/openapi.json")]
        await call(edge)
        await until(lambda: _are_disconnected(edge))
    finally:
        running.cancel()
        await asyncio.wait({running})
    assert most < MAX_ENVOY_BYTES


async def _are_disconnected(edge: Edge) -> bool:
    """Returns whether clients were disconnected for not reading, before and after their file was passed on."""
    return 0 not in [
        await edge.stat(name) for name in ("http.http.downstream_rq_idle_timeout", "http2.tx_flush_timeout")
    ]
