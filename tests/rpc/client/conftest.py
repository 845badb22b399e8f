"""Fixtures for parley-client: both clients, tested by the same code."""

import asyncio
import inspect
from collections.abc import Iterator
from typing import Any, Self

import pytest

from parley_client import AsyncClient, Client, Retry
from tests.rpc.conftest import Worker

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
def client(request: pytest.FixtureRequest, worker: Worker, events: Events) -> Iterator[Any]:
    """A client that waits briefly before it repeats a call: the synchronous one, then the one for asyncio."""

    def log(event: str, **fields: Any) -> None:
        events.append((event, fields))

    options: dict[str, Any] = {"key": worker.keys["ada"], "retry": Retry(initial_delay=0.01), "log": log}
    if request.param is Client:
        with Client(worker.address, **options) as made:
            yield made
        return
    with asyncio.Runner() as runner:

        async def make() -> AsyncClient:
            return AsyncClient(worker.address, **options)

        with Blocking(runner.run(make()), runner) as blocking:
            yield blocking
