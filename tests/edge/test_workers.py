"""Workers that start, stop and crash, and the Envoy process."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
import yaml

from parley.supervisor import envoy, envoy_admin
from parley.supervisor.address_limit import AddressLimit
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from tests.edge.conftest import AUTHORIZATION, Edge, channel_to, started, until
from tests.edge.worker import SILENT, Worker, gated

pytestmark = pytest.mark.asyncio(loop_scope="session")

CHAT = "/v1/chat/completions"
REQUEST = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


@asynccontextmanager
async def processes(run_dir: Path, *names: str) -> AsyncIterator[dict[str, asyncio.subprocess.Process]]:
    """Starts workers as separate processes, each with a socket of its name; kills them at the end."""
    running = {}
    try:
        for name in names:
            argv = [sys.executable, "-m", "tests.edge.worker", str(run_dir / f"{name}.sock")]
            running[name] = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
        for process in running.values():
            assert process.stdout
            assert b"ready\n" == await process.stdout.readline()
        yield running
    finally:
        for process in running.values():
            if process.returncode is None:
                process.kill()
            await process.wait()


async def make_calls(edge: Edge, times: int = 1) -> list[str]:
    """Makes calls, each of which must succeed; returns the names of the workers."""
    names = []
    async with aiohttp.ClientSession(edge.http, headers=AUTHORIZATION) as client:
        for _ in range(times):
            async with client.post(CHAT, json=REQUEST) as response:
                assert 200 == response.status
                names.append((await response.json())["model"])
    return names


async def test_a_dead_worker_costs_no_call(run_dir: Path) -> None:
    """After kill -9 of one of two workers, the other one serves every further call."""
    sockets = [run_dir / "one.sock", run_dir / "two.sock"]
    async with AsyncExitStack() as stack:
        workers = await stack.enter_async_context(processes(run_dir, "one", "two"))
        edge = await stack.enter_async_context(started(subfolder(run_dir, "dead"), sockets))
        assert {"one", "two"} == set(await make_calls(edge, 30))
        workers["one"].kill()
        await workers["one"].wait()
        assert {"two"} == set(await make_calls(edge, 30))


async def test_changes_of_the_worker_list_apply(run_dir: Path) -> None:
    """A worker that replaces another in the file gets its calls."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(processes(run_dir, "old", "new"))
        edge = await stack.enter_async_context(started(subfolder(run_dir, "list"), [run_dir / "old.sock"]))
        assert {"old"} == set(await make_calls(edge, 5))
        envoy.write_endpoints(edge.endpoints, [run_dir / "new.sock"])
        await edge.wait_for_workers({run_dir / "new.sock"})
        assert {"new"} == set(await make_calls(edge, 5))


async def test_a_worker_that_dies_in_mid_stream_leaves_it_truncated(run_dir: Path) -> None:
    """A stream that breaks is an incomplete HTTP body, so that clients detect the failure."""
    async with AsyncExitStack() as stack:
        workers = await stack.enter_async_context(processes(run_dir, "mid"))
        edge = await stack.enter_async_context(started(subfolder(run_dir, "mid"), [run_dir / "mid.sock"]))
        client = await stack.enter_async_context(aiohttp.ClientSession(edge.http, headers=AUTHORIZATION))
        response = await client.post(CHAT, json=REQUEST | {"stream": True})
        assert b"data: 1\n\n" == await response.content.readany()
        workers["mid"].kill()
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.content.read()


async def test_a_stopped_worker_loses_its_connections(run_dir: Path) -> None:
    """A worker that hangs fails its calls and streams once it leaves pings unanswered; nothing supervises it here."""

    def hurry(rendered: str) -> str:
        config = yaml.safe_load(rendered)
        for cluster in config["static_resources"]["clusters"]:
            if cluster["name"] in {"workers", "admin_workers"}:
                pings = _http2(cluster)["connection_keepalive"]
                assert 10 > 1.15 * float(pings["interval"][:-1]) + float(pings["timeout"][:-1])  # with Envoy's jitter
                pings.update(interval="0.5s", timeout="2s")
        return yaml.safe_dump(config)

    async with AsyncExitStack() as stack:
        workers = await stack.enter_async_context(processes(run_dir, "stopped"))
        edge = await stack.enter_async_context(
            started(subfolder(run_dir, "stopped"), [run_dir / "stopped.sock"], change=hurry)
        )
        client = await stack.enter_async_context(aiohttp.ClientSession(edge.http, headers=AUTHORIZATION))
        stream = await client.post(CHAT, json=REQUEST | {"stream": True})
        assert b"data: 1\n\n" == await stream.content.readany()
        channel = await stack.enter_async_context(channel_to(edge.grpc))
        call = ChatCompletionsStub(channel).CreateChatCompletion(CreateChatCompletionRequest(model=SILENT))
        output = workers["stopped"].stdout
        assert output
        assert f"{SILENT}\n".encode() == await output.readline()
        workers["stopped"].send_signal(signal.SIGSTOP)
        with pytest.raises(aiohttp.ClientPayloadError):
            await stream.content.read()
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await call
        assert grpc.StatusCode.UNAVAILABLE == failed.value.code()
        assert "WORKER_LOST" in str(failed.value.trailing_metadata())
        workers["stopped"].send_signal(signal.SIGCONT)
        await edge.wait_for_workers({run_dir / "stopped.sock"})
        assert ["stopped"] == await make_calls(edge)


async def test_a_leaving_worker_keeps_its_streams(
    edge: Edge, the_worker: tuple[Worker, Path], client: aiohttp.ClientSession
) -> None:
    """A stream of a worker that is NOT_SERVING goes on."""
    worker, socket = the_worker
    leaving = gated(worker)
    async with client.post(CHAT, json=REQUEST | {"stream": True}) as stream:
        await worker.set_serving(serving=False)
        try:
            await edge.wait_for_workers(set())
            leaving.set()
            assert b"data: 1\n\ndata: 2\n\n" == await stream.content.read()
        finally:
            await worker.set_serving(serving=True)
            await edge.wait_for_workers({socket})


async def test_without_a_worker_calls_fail_in_their_dialect(run_dir: Path) -> None:
    """Without a worker, calls are a 503 with a retry, and /healthz is a 503, too."""
    async with (
        started(subfolder(run_dir, "none"), []) as edge,
        aiohttp.ClientSession(edge.http, headers=AUTHORIZATION) as client,
    ):
        async with client.post(CHAT, json=REQUEST) as response:
            assert (503, "true", "1") == (
                response.status,
                response.headers["x-should-retry"],
                response.headers["retry-after"],
            )
            assert "service_unavailable" == (await response.json())["error"]["code"]
        async with client.post("/api" + CHAT, json=REQUEST) as response:
            assert (500, "1") == (response.status, response.headers["retry-after"])
            assert {"error": "Internal Server Error"} == await response.json()
        async with client.get("/healthz") as response:
            assert 503 == response.status


async def test_health_follows_the_workers(edge: Edge, worker: Worker, client: aiohttp.ClientSession) -> None:
    """A worker that is NOT_SERVING gets no calls until it is SERVING again."""

    async def healthz() -> int:
        async with client.get("/healthz") as response:
            return response.status

    async def is_removed() -> bool:
        return await healthz() == 503

    async def is_back() -> bool:
        return await healthz() == 200

    assert 200 == await healthz()
    await worker.set_serving(serving=False)
    try:
        await until(is_removed)
        async with client.get("/v1/models") as response:
            assert 503 == response.status
        assert [] == worker.calls
    finally:
        await worker.set_serving(serving=True)
        await until(is_back)


async def test_traffic_counts_open_connections_and_requests(edge: Edge, client: aiohttp.ClientSession) -> None:
    """A connection that is kept alive counts between its requests; each request counts."""
    _, before = await envoy_admin.traffic(edge.admin)
    for number in (1, 2):
        async with client.get("/livez") as response:
            await response.read()
        connections, requests = await envoy_admin.traffic(edge.admin)
        assert (True, before + number) == (connections >= 1, requests)


async def test_a_second_envoy_cannot_take_the_same_port(edge: Edge, run_dir: Path) -> None:
    """A second Envoy on the same port fails with a message."""
    config = run_dir / "second.yaml"
    text = envoy.render(
        http=("127.0.0.1", edge.port), grpc=("127.0.0.1", 0), endpoints=edge.endpoints, admin=run_dir / "second.sock"
    )
    config.write_text(text, encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        *envoy.command(config), cwd=envoy.edge_dir(), stderr=asyncio.subprocess.PIPE
    )
    try:
        _, errors = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
    assert 0 != process.returncode
    assert b"Address already in use" in errors


async def test_envoy_starts_without_warnings(run_dir: Path) -> None:
    """The configuration causes no warnings and uses nothing deprecated."""
    folder = subfolder(run_dir, "silent")
    config = folder / "envoy.yaml"
    envoy.write_endpoints(folder / "workers.yaml", [])
    AddressLimit(1, folder, tuple).publish()
    text = envoy.render(
        http=("127.0.0.1", 0), grpc=("127.0.0.1", 0), endpoints=folder / "workers.yaml", admin=folder / "admin.sock"
    )
    config.write_text(text, encoding="utf-8")
    argv = [*envoy.command(config), "--mode", "validate"]
    process = await asyncio.create_subprocess_exec(*argv, cwd=envoy.edge_dir(), stderr=asyncio.subprocess.PIPE)
    _, errors = await process.communicate()
    assert b"" == errors
    assert 0 == process.returncode


async def test_a_missing_envoy_is_not_ready(tmp_path: Path) -> None:
    """A request to an admin socket that does not exist returns False or raises OSError."""
    assert not await envoy_admin.ready(tmp_path / "none.sock")
    with pytest.raises(OSError, match="does not answer"):
        await envoy_admin.bound_ports(tmp_path / "none.sock")


def _http2(cluster: Any) -> Any:
    """Returns the HTTP/2 options of a cluster."""
    (options,) = cluster["typed_extension_protocol_options"].values()
    return options["explicit_http_config"]["http2_protocol_options"]


def subfolder(run_dir: Path, name: str) -> Path:
    """A new folder with a path short enough for sockets."""
    folder = run_dir / name
    folder.mkdir()
    return folder
