"""Edge tests: the real Envoy with the real configuration and Lua, on port 0. The worker is a scripted gRPC server.

Golden files contain what clients receive. `UPDATE_GOLDEN=1 pytest tests/edge` rewrites them; review the difference.
"""

import asyncio
import json
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
import pytest_asyncio
import yaml

from parley.supervisor import envoy, envoy_admin
from parley.supervisor.address_limit import AddressLimit
from parley.supervisor.edge_settings import DEFAULT_EDGE, EdgeSettings
from tests.edge.worker import Worker

GOLDEN = Path(__file__).parent / "golden"
AUTHORIZATION = {"authorization": "Bearer sk-1"}
"""A credential of the right form; the scripted worker does not check it."""


@dataclass
class Edge:
    """A running Envoy: `http` is its REST base URL, `grpc` its gRPC target, `port` the REST port."""

    http: str
    grpc: str
    port: int
    endpoints: Path
    admin: Path
    process: asyncio.subprocess.Process

    async def stat(self, name: str) -> int:
        """Returns a counter or gauge of Envoy."""
        connector = aiohttp.UnixConnector(path=str(self.admin))
        url = f"http://envoy/stats?filter=^{name}$&format=json"
        async with aiohttp.ClientSession(connector=connector) as session, session.get(url) as response:
            return int((await response.json(content_type=None))["stats"][0]["value"])

    async def wait_for_workers(self, healthy: set[Path]) -> None:
        """Waits until exactly these workers are healthy in Envoy."""
        await until(lambda: self._is_healthy(healthy))

    async def _is_healthy(self, healthy: set[Path]) -> bool:
        workers = await envoy_admin.workers(self.admin)
        return {path for path, is_healthy in workers.items() if is_healthy} == healthy


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Polls another process until the condition holds, for at most a minute."""
    async with asyncio.timeout(60):
        while not await holds():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def started(
    run_dir: Path,
    sockets: list[Path],
    settings: EdgeSettings = DEFAULT_EDGE,
    drain: str | None = None,
    change: Callable[[str], str] = lambda rendered: rendered,
) -> AsyncIterator[Edge]:
    """Starts Envoy in front of the workers on these sockets, and stops it.

    Args:
        run_dir: A folder for Envoy's configuration and sockets.
        sockets: The sockets of the workers.
        settings: Settings of the listeners.
        drain: How long a connection that has reached its maximum age accepts calls, instead of Envoy's 5 seconds.
        change: Changes the rendered configuration.
    """
    endpoints, admin, config = run_dir / "workers.yaml", run_dir / "admin.sock", run_dir / "envoy.yaml"
    envoy.write_endpoints(endpoints, sockets)
    AddressLimit(settings.address_limit, run_dir, tuple).publish()
    anywhere = ("127.0.0.1", 0)
    rendered = envoy.render(http=anywhere, grpc=anywhere, endpoints=endpoints, admin=admin, settings=settings)
    config.write_text(change(_patient(rendered, drain)))
    process = await asyncio.create_subprocess_exec(
        *envoy.command(config, threads=settings.threads), cwd=envoy.edge_dir()
    )
    try:
        await until(lambda: envoy_admin.ready(admin))
        ports = await envoy_admin.bound_ports(admin)
        http = f"http://127.0.0.1:{ports['http']}"
        edge = Edge(http, f"127.0.0.1:{ports['grpc']}", ports["http"], endpoints, admin, process)
        await edge.wait_for_workers(set(sockets))
        yield edge
    finally:
        process.terminate()
        await process.wait()


def _patient(rendered: str, drain: str | None) -> str:
    """Sets the drain time, and a long timeout of health checks.

    The scripted worker answers only while the event loop of the tests runs.
    Between two files of edge tests a process may run other tests for minutes. A worker that has stopped or is
    NOT_SERVING is still detected immediately, without a timeout.
    """
    config = yaml.safe_load(rendered)
    for cluster in config["static_resources"]["clusters"]:
        for check in cluster.get("health_checks", []):
            check["timeout"] = "3600s"
    for listener in config["static_resources"]["listeners"]:
        if drain:
            listener["filter_chains"][0]["filters"][-1]["typed_config"]["drain_timeout"] = drain
    return yaml.safe_dump(config, sort_keys=False)


def channel_to(target: str, options: Any = None) -> grpc.aio.Channel:
    """Returns a channel to the gRPC listener whose calls have a credential of the right form."""
    interceptors = [_Authorized(), _AuthorizedStreams()]
    return grpc.aio.insecure_channel(target, options, interceptors=interceptors)


def _authorized(details: Any) -> Any:
    return details._replace(metadata=[*(details.metadata or ()), *AUTHORIZATION.items()])


class _Authorized(grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(_authorized(client_call_details), request)


class _AuthorizedStreams(grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(_authorized(client_call_details), request)


@pytest.fixture(scope="module")
def run_dir() -> Any:
    """A folder with a path short enough for Unix sockets."""
    with tempfile.TemporaryDirectory(prefix="edge") as path:
        yield Path(path)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def the_worker(run_dir: Path) -> AsyncIterator[tuple[Worker, Path]]:
    """One scripted worker for all tests of a file, and its socket; its event loop may pause between files."""
    worker, socket = Worker(), run_dir / "worker.sock"
    server = await worker.serve(socket)
    yield worker, socket
    await server.stop(None)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def edge(the_worker: tuple[Worker, Path], run_dir: Path) -> AsyncIterator[Edge]:
    """One Envoy with default settings for all tests of a file."""
    async with started(run_dir, [the_worker[1]]) as running:
        yield running


@pytest.fixture
def worker(the_worker: tuple[Worker, Path]) -> Worker:
    """The scripted worker, reset."""
    the_worker[0].reset()
    return the_worker[0]


@pytest_asyncio.fixture(loop_scope="session")
async def client(edge: Edge) -> AsyncIterator[aiohttp.ClientSession]:
    """An HTTP client of the REST listener: paths are relative to it."""
    async with aiohttp.ClientSession(edge.http, headers=AUTHORIZATION) as session:
        yield session


@pytest.fixture
def golden() -> Callable[[str, Any], None]:
    """Compares JSON with the golden file of that name."""

    def compare(name: str, actual: Any) -> None:
        path = GOLDEN / f"{name}.json"
        if os.environ.get("UPDATE_GOLDEN"):
            path.write_text(json.dumps(actual, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        assert json.loads(path.read_text(encoding="utf-8")) == actual

    return compare
