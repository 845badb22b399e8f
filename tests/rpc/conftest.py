"""RPC tests: the real aio server with Parley's core, a SQLite store on disk and real keys, on a thread of its own.

pytest-grpc's fixtures give the stubs; its `grpc_server` is replaced by ours. Only the backend is a fake, at its port.
"""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest

from parley import logs
from parley.auth.api_keys import ApiKeys
from parley.config import Config, parse
from parley.core.chat import Chat
from parley.core.routing import Router
from parley.core.turns import Turns
from parley.rpc.server import Server
from parley.stores.sqlite import SqliteStore
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from parley.v1.models_pb2_grpc import ModelsStub
from parley.v1.sessions_pb2_grpc import SessionsStub
from tests.rpc.scripted import ScriptedBackend

CONFIG = """
backends: {scripted: {kind: openai, base_url: "http://127.0.0.1:1/v1"}}
models:
  - {id: kept, targets: [{backend: scripted, model: upstream}]}
  - {id: on-request, targets: [{backend: scripted}], sessions: on_request}
  - {id: stateless, targets: [{backend: scripted}], sessions: "off"}
default_model: kept
"""

T = TypeVar("T")


@dataclass
class Worker:
    """The running server: its address, its fake backend, its store, and keys of several accounts."""

    address: str
    backend: ScriptedBackend
    store: SqliteStore
    keys: dict[str, str]
    loop: asyncio.AbstractEventLoop
    server: Server

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine on the server's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def call_soon(self, function: Callable[[], object]) -> None:
        """Calls a function on the server's loop."""
        self.loop.call_soon_threadsafe(function)


class _Thread:
    """Runs a loop with a server on a thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self) -> Worker:
        self._thread.start()
        return asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(30)

    async def _start(self) -> Worker:
        config: Config = parse(CONFIG, "test.yaml")
        backend = ScriptedBackend()
        store = SqliteStore(self._path / "parley.db")
        keys = ApiKeys(store)
        self._turns = Turns(store)
        router = Router(config, {"scripted": backend})
        server = Server(Chat(router, self._turns), router, store, keys)
        address = await server.start("127.0.0.1:0")
        secrets = {
            name: (await keys.create(name=name, account=name, plan=plan, models=models))[1]
            for name, plan, models in (
                ("ada", "pro", ()),
                ("bob", "pro", ()),
                ("eve", "free", ()),
                ("tim", "pro", ("kept",)),
            )
        }
        self._worker = Worker(address, backend, store, secrets, self._loop, server)
        return self._worker

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _stop(self) -> None:
        await self._worker.server.stop(0)
        await self._turns.close()
        await self._worker.store.close()


@pytest.fixture(scope="session")
def log_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this process logs to, one JSON object a line."""
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    logs.configure(human=False, file=path.open("wb"))
    return path


@pytest.fixture
def log(log_file: Path) -> Callable[[str, int], list[dict[str, Any]]]:
    """Waits until `count` lines of a request are in the log, and returns them."""

    def read(request_id: str, count: int) -> list[dict[str, Any]]:
        while True:
            lines = [
                json.loads(line) for line in log_file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")
            ]
            mine = [line for line in lines if line.get("request_id") == request_id]
            if len(mine) >= count:
                return mine
            time.sleep(0.01)

    return read


@pytest.fixture(scope="module")
def grpc_server(log_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """Replaces pytest-grpc's threaded server by Parley's own."""
    thread = _Thread(tmp_path_factory.mktemp("rpc"))
    yield thread.start()
    thread.stop()


@pytest.fixture(scope="module")
def grpc_addr(grpc_server: Worker) -> str:
    """Where pytest-grpc's channel connects to."""
    return grpc_server.address


@pytest.fixture
def worker(grpc_server: Worker) -> Worker:
    """The server, with a fresh fake backend's script."""
    grpc_server.backend.__init__()  # type: ignore[misc]
    return grpc_server


@pytest.fixture
def chat(grpc_channel: grpc.Channel) -> ChatCompletionsStub:
    """The generated stub."""
    return ChatCompletionsStub(grpc_channel)


@pytest.fixture
def sessions(grpc_channel: grpc.Channel) -> SessionsStub:
    """The generated stub."""
    return SessionsStub(grpc_channel)


@pytest.fixture
def models(grpc_channel: grpc.Channel) -> ModelsStub:
    """The generated stub."""
    return ModelsStub(grpc_channel)


@pytest.fixture
def ada(worker: Worker) -> tuple[tuple[str, str], ...]:
    """The metadata of a caller with a good key."""
    return (("authorization", f"Bearer {worker.keys['ada']}"),)


@pytest.fixture
def bob(worker: Worker) -> tuple[tuple[str, str], ...]:
    """The metadata of a caller of another account."""
    return (("authorization", f"Bearer {worker.keys['bob']}"),)
