"""A whole Parley: model servers, workers, and Envoy in front of them."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from parley.config import Config
from parley.logs import Level
from parley.supervisor.addresses import Address, parse_address
from parley.supervisor.children import Envoy, ModelServer, Worker, model_backends
from parley.supervisor.edge_settings import DEFAULT_EDGE, EdgeSettings
from parley.supervisor.errors import CommandError
from parley.supervisor.folders import private_dir
from parley.supervisor.process import Child
from parley.supervisor.worker import WorkerSpec

_WORKER_GRACE_SECONDS = 20.0  # a worker that is told to stop drains for half of it
_GRACE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Paths:
    """Where a Parley keeps its things and listens. Without `http`: no Envoy, one worker, on `grpc`."""

    state_dir: Path
    run_dir: Path
    http: Address | None
    grpc: Address
    edge: EdgeSettings = DEFAULT_EDGE
    log_level: Level = "info"


class Models:
    """The model servers of one configuration, with their sockets in a folder of their own."""

    def __init__(self, config: Config, run_dir: Path) -> None:
        private_dir(run_dir)
        self.run_dir = run_dir
        self.backends = model_backends(config)
        self.servers = [ModelServer(name, backend, run_dir) for name, backend in self.backends.items()]

    async def start(self) -> None:
        """Returns when all are loaded; where one is not, stops all and raises CommandError."""
        try:
            await _all(server.start() for server in self.servers)
        except CommandError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Returns when all are gone."""
        await _all(server.stop(_GRACE_SECONDS) for server in self.servers)


class Stack:
    """Starts, changes and stops all processes of one Parley. `http` and `grpc` are its addresses once it serves."""

    def __init__(self, config: Config, paths: Paths, workers: int) -> None:
        self.http, self.grpc = paths.http, paths.grpc
        self._paths = paths
        self._numbers = count(1)
        self._envoy = Envoy(paths.run_dir, paths.http, paths.grpc, paths.edge) if paths.http else None
        self._models = self._make_models(config)
        self._workers = [self._make_worker(f"worker {number + 1}", config, self._models) for number in range(workers)]
        self._others: list[Models | Worker] = []  # those that are coming or going
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, progress: Callable[[str], None]) -> None:
        """Returns when everything serves. Raises CommandError with the cause when something does not."""
        if self._models.servers:
            # First: to the health checks of a worker, a model that is still loading is a backend that has failed.
            progress("Loading the model")
            await self._models.start()
        progress("Starting the workers")
        await _all(worker.start() for worker in self._workers)
        if self._envoy is None:
            self.grpc = parse_address(self._workers[0].address or "")
            return
        progress("Starting Envoy")
        await self._envoy.start()
        await self._envoy.wait_applied()  # until then it knows the workers' addresses, and not that they serve
        self.http, self.grpc = self._envoy.http, self._envoy.grpc

    async def reload(self, config: Config) -> None:
        """Puts a worker with the new configuration in each worker's place; no request fails.

        Raises CommandError when something does not start; what is not yet replaced then stays as it is.
        """
        before = self._models
        if model_backends(config) != before.backends:
            models = self._make_models(config)
            await models.start()
            self._models = models
        leaving = []
        for index, worker in enumerate(self._workers):
            self._workers[index] = await self._successor(worker, config)
            leaving.append(self._retire(worker, worker.drain()))
        if self._models is not before:
            self._retire(before, _after(leaving, before.stop))
        if self._envoy is not None:
            await self._envoy.wait_applied()

    async def stop(self) -> None:
        """Drains the workers, then stops the rest; returns when every process is gone."""
        await _all(worker.stop(_WORKER_GRACE_SECONDS) for worker in self._all_workers())
        if self._envoy is not None:
            await self._envoy.stop(_GRACE_SECONDS)
        await _all(models.stop() for models in self._all_models())

    def kill(self) -> None:
        """Ends every process at once; `stop` still tells when they are gone."""
        servers = [server for models in self._all_models() for server in models.servers]
        children: list[Child] = [*self._all_workers(), *servers]
        for child in children if self._envoy is None else [*children, self._envoy]:
            child.kill()

    def _all_workers(self) -> list[Worker]:
        """The workers, and those that come or go."""
        return [*self._workers, *(other for other in self._others if isinstance(other, Worker))]

    def _all_models(self) -> list[Models]:
        return [self._models, *(other for other in self._others if isinstance(other, Models))]

    def _make_models(self, config: Config) -> Models:
        return Models(config, self._paths.run_dir / f"models-{next(self._numbers)}")

    def _make_worker(self, name: str, config: Config, models: Models) -> Worker:
        def spec() -> WorkerSpec:
            address = f"unix:{self._paths.run_dir}/worker-{next(self._numbers)}.sock" if self._envoy else str(self.grpc)
            paths = self._paths
            return WorkerSpec(
                config.model_dump_json(), str(paths.state_dir), str(models.run_dir), address, paths.log_level
            )

        return Worker(name, spec, self._publish)

    async def _successor(self, worker: Worker, config: Config) -> Worker:
        """Starts the worker that takes this one's place, and returns it when the edge uses it. Raises CommandError."""
        successor = self._make_worker(worker.name, config, self._models)
        self._others.append(successor)
        try:
            await successor.start()
            if self._envoy is not None:
                await self._envoy.wait_applied()
        except CommandError:
            await successor.stop(0)
            self._others.remove(successor)
            raise
        self._others.remove(successor)
        return successor

    def _retire(self, old: Models | Worker, end: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Lets something end in its own time."""
        task = asyncio.create_task(end)
        self._others.append(old)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: self._others.remove(old))
        return task

    def _publish(self) -> None:
        """Tells Envoy which workers serve."""
        if self._envoy is not None:
            self._envoy.set_workers([worker.address for worker in self._all_workers() if worker.address])


async def _all(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Runs all; raises the first failure at once, and lets the others be."""
    await asyncio.gather(*coroutines)


async def _after(tasks: Iterable[asyncio.Task[None]], then: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Waits for the tasks, whatever becomes of them."""
    await asyncio.gather(*tasks, return_exceptions=True)
    await then()
