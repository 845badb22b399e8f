"""Fixtures for parley-client: both clients, tested by the same code."""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Self

import pytest

from parley_client import AsyncClient, Client, Retry
from tests.rpc.client.failing_server import FailingServer
from tests.rpc.conftest import Worker

Connect = Callable[[str, str], Any]
Events = list[tuple[str, dict[str, Any]]]


class Blocking:
    """Makes an object with coroutines and asynchronous iterators usable without an event loop."""

    def __init__(self, wrapped: Any, runner: asyncio.Runner) -> None:
        self._wrapped = wrapped
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        return self._wrap(getattr(self._wrapped, name))

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        async def call() -> Any:
            result = self._wrapped(*arguments, **named)
            return await result if inspect.isawaitable(result) else result

        return self._wrap(self._runner.run(call()))

    def __iter__(self) -> Iterator[Any]:
        iterator = aiter(self._wrapped)
        while True:
            try:
                yield self._runner.run(_next(iterator))
            except StopAsyncIteration:
                return

    def __next__(self) -> Any:
        return self._runner.run(_next(self._wrapped))

    def __enter__(self) -> Self:
        self._runner.run(self._wrapped.__aenter__())
        return self

    def __exit__(self, *error: object) -> None:
        self._runner.run(self._wrapped.__aexit__(*error))

    def _wrap(self, value: Any) -> Any:
        is_async = callable(value) or hasattr(value, "__aiter__") or type(value).__name__.startswith("Async")
        return Blocking(value, self._runner) if is_async else value


async def _next(iterator: Any) -> Any:
    return await anext(iterator)


@pytest.fixture
def events() -> Events:
    """The events that the client logs, with their fields."""
    return []


@pytest.fixture(params=[Client, AsyncClient])
def connect(request: pytest.FixtureRequest, events: Events) -> Iterator[Connect]:
    """Connects to an address with a key: the synchronous client, then the one for asyncio."""

    def log(event: str, **fields: Any) -> None:
        events.append((event, fields))

    options: dict[str, Any] = {"retry": Retry(initial_delay=0.01), "log": log}
    with asyncio.Runner() as runner, ExitStack() as clients:

        def make(address: str, key: str) -> Any:
            if request.param is Client:
                return clients.enter_context(Client(address, key=key, **options))

            async def make_async() -> AsyncClient:
                return AsyncClient(address, key=key, **options)

            return clients.enter_context(Blocking(runner.run(make_async()), runner))

        yield make


@pytest.fixture
def client(worker: Worker, connect: Connect) -> Any:
    """A client of the server that waits briefly before it repeats a call."""
    return connect(worker.address, worker.keys["ada"])


@pytest.fixture
def server() -> Iterator[FailingServer]:
    """A server that fails."""
    made = FailingServer()
    yield made
    made.stop()
