"""RPC tests: the real aio server with Parley's core, a SQLite store on disk and real keys, in a thread.

pytest-grpc's fixtures make the stubs; its `grpc_server` is replaced by Parley's server. Only the backend is a fake.
"""

import asyncio
import json
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import grpc
import pytest

from parley.auth.access import AccessChecker
from parley.auth.api_keys import ApiKeys
from parley.auth.callers import Callers
from parley.config.loader import parse
from parley.core.cache.answers import AnswerCache
from parley.core.cache.key import identities
from parley.core.chat import Chat
from parley.core.ports import Backend
from parley.core.routing.router import Router
from parley.core.routing.target_breakers import TargetBreakers
from parley.core.sessions.turns import Turns
from parley.core.usage.limits import RateLimiter
from parley.core.usage.recorder import UsageRecorder
from parley.guards.opening import open_guards
from parley.logs import configuration as logs
from parley.logs.output import Output
from parley.rpc.server import Server
from parley.rpc.shutdown import Shutdown
from parley.stores.sqlite import SqliteStore
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from parley.v1.models_pb2_grpc import ModelsStub
from parley.v1.sessions_pb2_grpc import SessionsStub
from tests.keys import create_key
from tests.processes import until
from tests.rpc.scripted import ScriptedBackend

CONFIG = """
backends: {scripted: {kind: openai, base_url: "http://127.0.0.1:1/v1"}}
models:
  - {id: kept, targets: [{backend: scripted, model: upstream}]}
  - {id: on-request, targets: [{backend: scripted}], sessions: on_request}
  - {id: stateless, targets: [{backend: scripted}], sessions: "off"}
  - {id: queued, targets: [{backend: scripted}], concurrent_turns: queue}
  - {id: impatient, targets: [{backend: scripted}], concurrent_turns: queue, queue_timeout: 50ms}
  - {id: once, targets: [{backend: scripted}], retries: {attempts: 1}}
  - {id: short, targets: [{backend: scripted}], history: {max_messages: 2}}
default_model: kept
"""
ACCOUNTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("ada", "pro", ()),
    ("bob", "pro", ()),
    ("eve", "free", ()),
    ("tim", "pro", ("kept",)),
)

T = TypeVar("T")


@dataclass
class Worker:
    """The running server: its address, fake backend, keys by account name, and loop."""

    address: str
    backend: ScriptedBackend
    keys: dict[str, str]
    loop: asyncio.AbstractEventLoop
    server: Server
    turns: Turns
    store: SqliteStore
    router: Router
    cache: AnswerCache

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine on the server's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def call_soon(self, function: Callable[[], object]) -> None:
        """Calls a function on the server's loop."""
        self.loop.call_soon_threadsafe(function)

    def queue_length(self, session_id: str) -> int:
        """Returns how many calls wait in the queue of a session."""
        return self.turns.queue.length(session_id)

    def wait_for_calls(self, count: int) -> None:
        """Waits until the backend has received `count` calls."""
        until(lambda: len(self.backend.calls) >= count, f"{count} calls of the backend")


@asynccontextmanager
async def serving(
    folder: Path,
    config: str = CONFIG,
    clock: Callable[[], float] = time.time,
    others: Mapping[str, Backend] = MappingProxyType({}),
    /,
    **options: Any,
) -> AsyncIterator[Worker]:
    """Runs the server on this loop.

    Args:
        folder: Holds the store.
        config: The configuration.
        clock: The clock of the store, in Unix seconds.
        others: Backends by name, beside the fake one.
        options: Further arguments of the server.
    """
    backend, store = ScriptedBackend(), SqliteStore(folder / "parley.db", clock)
    settings = parse(config, "test.yaml")
    turns = Turns(store, settings.limits.session.bytes)
    callers = Callers(settings.plans, settings.limits, settings.models)
    keys, access = ApiKeys(store, callers), AccessChecker(store, callers)
    router, limits = Router(settings, {"scripted": backend, **others}), RateLimiter(store)
    usage = UsageRecorder(store, clock=clock, flush_seconds=0.05)
    guards = open_guards(settings)
    cache = AnswerCache(store, identities(settings), router.temperature)
    chat = Chat(router, turns, limits, store, usage, cache, guards)
    server = Server(chat, router, store, keys, access, **options)
    secrets = {name: (await create_key(store, name, name, plan, models))[1] for name, plan, models in ACCOUNTS}
    address = await server.start("127.0.0.1:0")
    usage.start()
    yield Worker(address, backend, secrets, asyncio.get_running_loop(), server, turns, store, router, cache)
    await server.stop(Shutdown(grace=0))
    await turns.close()
    await cache.close()
    await limits.close()
    await usage.close()
    if guards is not None:
        await guards.close()
    await store.close()


@pytest.fixture(scope="session")
def log_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file to which this process logs, one JSON object per line."""
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    logs.configure(human=False, output=Output(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)))
    return path


@pytest.fixture
def log(log_file: Path) -> Callable[[str, int], list[dict[str, Any]]]:
    """Waits until `count` lines of a request are in the log, and returns them."""

    def lines(request_id: str) -> list[dict[str, Any]]:
        non_streaming = [line for line in log_file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        return [line for line in map(json.loads, non_streaming) if line.get("request_id") == request_id]

    def read(request_id: str, count: int) -> list[dict[str, Any]]:
        until(lambda: len(lines(request_id)) >= count, f"{count} lines of {request_id}")
        return lines(request_id)

    return read


@pytest.fixture(scope="module")
def grpc_server(log_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """Replaces pytest-grpc's threaded server by Parley's own, in a thread."""
    loop, running = asyncio.new_event_loop(), AsyncExitStack()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    start = running.enter_async_context(serving(tmp_path_factory.mktemp("rpc")))
    yield asyncio.run_coroutine_threadsafe(start, loop).result(30)
    asyncio.run_coroutine_threadsafe(running.aclose(), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)


@pytest.fixture(scope="module")
def grpc_addr(grpc_server: Worker) -> str:
    """The address of pytest-grpc's channel."""
    return grpc_server.address


@pytest.fixture
def worker(grpc_server: Worker) -> Worker:
    """The server with a new script for the fake backend and closed breakers."""
    grpc_server.backend.__init__()  # type: ignore[misc]
    for target in grpc_server.router.targets:
        target.breakers = TargetBreakers(time.monotonic)
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
    """The metadata of a caller with a valid key."""
    return (("authorization", f"Bearer {worker.keys['ada']}"),)


@pytest.fixture
def bob(worker: Worker) -> tuple[tuple[str, str], ...]:
    """The metadata of a caller of another account."""
    return (("authorization", f"Bearer {worker.keys['bob']}"),)


@pytest.fixture
def tim(worker: Worker) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
    """The metadata of two keys of one account: the first may use all models, the second only `kept`."""
    _, secret = worker.run(create_key(worker.store, "all", "tim"))
    return (("authorization", f"Bearer {secret}"),), (("authorization", f"Bearer {worker.keys['tim']}"),)
