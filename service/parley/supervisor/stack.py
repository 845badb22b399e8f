"""All processes of one Parley: model servers, workers, and Envoy in front of them."""

import asyncio
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from parley.rpc.server_options import ServerLimits
from parley.supervisor import environment
from parley.supervisor.addresses import Address, parse_address
from parley.supervisor.admin_sockets import AdminLink, admin_socket, metrics_socket, remote_admin_socket
from parley.supervisor.children import Envoy
from parley.supervisor.configuration_metrics import ConfigurationMetrics
from parley.supervisor.edge_settings import EdgeSettings
from parley.supervisor.errors import CommandError
from parley.supervisor.messages import Progress
from parley.supervisor.metrics import collect
from parley.supervisor.model_servers import Models
from parley.supervisor.paths import Paths
from parley.supervisor.plan import Plan, ProcessSettings
from parley.supervisor.process import Child, print_notice, restore_dir
from parley.supervisor.readiness import readiness
from parley.supervisor.worker import WorkerSpec
from parley.supervisor.workers import Worker

_WORKER_GRACE_SECONDS = 10.0  # for the end of a worker, beyond the time of its running calls
_GRACE_SECONDS = 5.0
_POLL_SECONDS = 0.1
_LOST_SOCKET = "its socket was removed"
_QUIET_SECONDS = 3.0  # without a request, after which a connection counts as unused: its next response would end it


class Stack:
    """Starts, reloads and stops all processes. `http`, `grpc` and `admin` are the bound addresses after `start`.

    Args:
        plan: What is started.
        store_identity: Returns the identity of the store; None while it is unknown. Raises CommandError if the store
            is unusable.
        spare: Returns a process for a worker with this environment that has been started already; None for none.
        metrics: Where metrics are served; None for no metrics.
    """

    def __init__(
        self,
        plan: Plan,
        store_identity: Callable[[], Awaitable[str | None]],
        spare: Callable[[Mapping[str, str]], Process | None],
        metrics: Address | None = None,
    ) -> None:
        paths = self._paths = plan.paths
        self.http, self.grpc, self.admin = paths.http, paths.grpc, paths.edge.admin
        self.metrics = metrics
        self._settings, self._reloads = plan.settings, plan.reloads
        self.configuration = ConfigurationMetrics(plan.settings.file)
        self._store_identity, self._spare = store_identity, spare
        self._changing = asyncio.Lock()
        self._numbers = count(1)
        self._envoy = _make_envoy(plan.envoy, paths)
        self._admin_link = AdminLink(paths.state_dir / "admin.sock") if paths.http else None
        self._has_delay = paths.shutdown.delay > 0
        self._models = self._make_models(plan.settings)
        self._workers = [self._make_worker(f"worker {number + 1}", self._models) for number in range(plan.workers)]
        self._others: list[Models | Worker] = []  # starting or draining
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def settings(self) -> ProcessSettings:
        """The settings of the processes, since the last reload."""
        return self._settings

    @property
    def state_dir(self) -> Path:
        """The state folder."""
        return self._paths.state_dir

    async def start(self, progress: Callable[[Progress], None]) -> None:
        """Starts all processes and waits until they serve. Raises CommandError with the cause of a failure."""
        if self._models.servers:
            await self._store_identity()  # an unusable store is reported before the model loads
            # First, because the health checks of a worker count a model that is loading as a failed backend.
            await self._models.start(progress)
        progress(Progress("Starting the workers"))
        await _all(worker.start() for worker in self._workers)
        if self._envoy is None:
            self.grpc = parse_address(self._workers[0].address or "")
            return
        progress(Progress("Starting Envoy"))  # after the workers: a port without a worker would fail calls
        await self._envoy.start()
        await self._envoy.wait_applied()  # until then, Envoy has not checked the health of the workers
        self.http, self.grpc, self.admin = self._envoy.http, self._envoy.grpc, self._envoy.settings.admin

    async def reload(self, settings: ProcessSettings) -> None:
        """Replaces each worker by one with the new settings; no request fails.

        Raises CommandError if a process does not start; workers that are not yet replaced continue.
        """
        async with self._changing:
            await self._reload(settings)

    async def _reload(self, settings: ProcessSettings) -> None:
        before = self._models
        if settings.models != before.settings:
            models = self._make_models(settings)
            await models.start()
            self._models = models
        self._settings = settings
        leaving = []
        for index, worker in enumerate(self._workers):
            self._workers[index] = await self._successor(worker)
            leaving.append(self._retire(worker, worker.drain(self._wait_applied)))
        if self._models is not before:
            self._retire(before, _after(leaving, before.stop))
        await self._wait_applied()

    async def repair(self) -> None:
        """Makes the run folder again if it was removed, and replaces the processes whose sockets are lost.

        Envoy's connections outlive the sockets, so that calls go on until their process is replaced.
        Raises CommandError if that fails.
        """
        async with self._changing:
            self._restore_folders()
            for server in self._models.servers:
                if server.has_lost_socket:
                    await server.replace(_LOST_SOCKET)
            lost = [index for index, worker in enumerate(self._workers) if worker.has_lost_socket]
            leaving = [self._workers[index] for index in lost]
            for index in lost:
                print_notice(f"{self._workers[index].name} is replaced: {_LOST_SOCKET}")
                self._workers[index] = await self._started_successor(self._workers[index])
            if self._envoy is not None and self._envoy.has_lost_socket:
                for worker in leaving:
                    worker.on_stopped()  # the next Envoy cannot connect to it
                await self._envoy.replace(_LOST_SOCKET)
            if leaving:
                await self._wait_applied()
            for worker in leaving:
                self._retire(worker, worker.drain(self._wait_applied))

    def _restore_folders(self) -> None:
        run_dir = self._paths.run_dir
        run_dir.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (run_dir, *(models.run_dir for models in self._all_models())):
            restore_dir(folder)
        if self._envoy is not None:
            self._envoy.restore_files()

    def skip_delay(self) -> None:
        """Has `stop` accept no more connections from its beginning."""
        self._has_delay = False

    async def stop(self) -> None:
        """Sends callers away, waits for running calls, then stops all processes and waits for their ends."""
        if self._envoy is not None and self._envoy.up.is_set():
            await self._drain(self._envoy)
        await _all(worker.stop(self._paths.shutdown.grace + _WORKER_GRACE_SECONDS) for worker in self._all_workers())
        if self._envoy is not None:
            await self._envoy.stop(_GRACE_SECONDS)
        await _all(models.stop() for models in self._all_models())
        if self._admin_link is not None:
            self._admin_link.remove()

    async def _drain(self, envoy: Envoy) -> None:
        """Sends callers away and waits for running calls.

        If all finish in time, Envoy ends before the workers, so that these answer every call that it accepts.
        """
        workers = [worker for worker in self._workers if worker.address]
        for worker in workers:
            worker.leave()
        await envoy.drain(graceful=self._has_delay)
        quiet = asyncio.create_task(self._wait_quiet(envoy, workers))
        _, unfinished = await asyncio.wait({quiet, *self._tasks}, timeout=self._paths.shutdown.grace)
        quiet.cancel()
        if not unfinished:
            await envoy.stop(_GRACE_SECONDS)

    async def _wait_quiet(self, envoy: Envoy, workers: Sequence[Worker]) -> None:
        """Waits until no call runs, and callers have left or sent nothing for a while."""
        loop = asyncio.get_running_loop()
        last_requests, changed = -1, loop.time()
        while True:
            await _all([asyncio.sleep(_POLL_SECONDS), *(worker.wait_idle() for worker in workers)])
            connections, requests = await envoy.traffic()
            if requests != last_requests:
                last_requests, changed = requests, loop.time()
            if not connections or loop.time() - changed >= _QUIET_SECONDS:
                return

    async def _wait_applied(self) -> None:
        """Waits until Envoy, if there is one, uses exactly the current workers."""
        if self._envoy is not None:
            await self._envoy.wait_applied()

    def kill(self) -> None:
        """Kills every process without waiting for its end; `stop` waits."""
        servers = [server for models in self._all_models() for server in models.servers]
        children: list[Child] = [*self._all_workers(), *servers]
        for child in children if self._envoy is None else [*children, self._envoy]:
            child.kill()

    def _all_workers(self) -> list[Worker]:
        """Returns the workers, with those that are starting or draining."""
        return [*self._workers, *(other for other in self._others if isinstance(other, Worker))]

    def _all_models(self) -> list[Models]:
        return [self._models, *(other for other in self._others if isinstance(other, Models))]

    def _make_models(self, settings: ProcessSettings) -> Models:
        return Models(settings, self._paths.run_dir / f"models-{next(self._numbers)}", self._paths.hang_limits)

    def _make_worker(self, name: str, models: Models) -> Worker:
        settings = self._settings

        async def spec() -> WorkerSpec:
            paths = self._paths
            identity = await self._store_identity()
            socket = paths.run_dir / f"worker-{next(self._numbers)}.sock"
            return WorkerSpec(
                settings.worker,
                str(paths.state_dir),
                str(models.run_dir),
                address=f"unix:{socket}" if self._envoy else str(self.grpc),
                admin=str(admin_socket(socket)),
                metrics=str(metrics_socket(socket)) if self.metrics else None,
                remote_admin=self._remote_admin(socket),
                log_level=paths.log_level,
                limits=None if self._envoy or paths.behind_edge else _server_limits(paths.edge),
                grace=paths.shutdown.grace,
                store_identity=identity,
                reloads=self._reloads,
            )

        limits, folder = self._paths.hang_limits, self._paths.run_dir
        variables = environment.behind_envoy(settings.environment) if self._envoy else settings.environment
        return Worker(name, variables, spec, self._publish, hang_limits=limits, folder=folder, spare=self._spare)

    def _remote_admin(self, socket: Path) -> str | None:
        """Returns where a worker serves Envoy's admin listener, by the socket of its calls."""
        admin = self._paths.edge.admin
        if admin is None:
            return None
        return f"unix:{remote_admin_socket(socket)}" if self._envoy else str(admin)

    async def scrape(self) -> bytes:
        """Returns the metrics of all processes. A replaced worker has a label of its own until it ends."""
        sockets = {label: socket for label, socket in self._sockets().items() if socket is not None}
        draining = [other.metrics for other in self._others if isinstance(other, Worker) and other.metrics is not None]
        sockets |= {f"draining-{socket.name.split('-')[1]}": socket for socket in draining}
        collected = await collect(sockets, self._envoy.admin if self._envoy is not None else None)
        return self.configuration.text() + collected

    async def check(self) -> tuple[bool, str]:
        """Returns whether calls are served, and a line for each check."""
        return await readiness(self._sockets(), self._envoy.admin if self._envoy is not None else None)

    def _sockets(self) -> dict[str, Path | None]:
        """Returns the socket for metrics of each worker, by its number; None for one that does not run."""
        return {worker.name.removeprefix("worker "): worker.metrics for worker in self._workers}

    async def _successor(self, worker: Worker) -> Worker:
        """Starts the replacement of a worker and waits until Envoy uses it. Raises CommandError."""
        successor = await self._started_successor(worker)
        await self._wait_applied()
        return successor

    async def _started_successor(self, worker: Worker) -> Worker:
        """Starts the replacement of a worker. Raises CommandError."""
        successor = self._make_worker(worker.name, self._models)
        self._others.append(successor)
        try:
            await successor.start()
        except CommandError:
            await successor.stop(0)
            self._others.remove(successor)
            raise
        self._others.remove(successor)
        return successor

    def _retire(self, old: Models | Worker, end: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs the end of a worker or of model servers in the background."""
        task = asyncio.create_task(end)
        self._others.append(old)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: self._others.remove(old))
        return task

    def _publish(self) -> None:
        """Sends Envoy the addresses of the serving workers, and links to the admin socket of one of them."""
        addresses = [worker.address for worker in self._all_workers() if worker.address]
        if self._envoy is not None:
            self._envoy.set_workers(addresses)
        if self._admin_link is not None:
            self._admin_link.update([Path(address.removeprefix("unix:")) for address in addresses])


def _make_envoy(config: str, paths: Paths) -> Envoy | None:
    if paths.http is None:
        return None
    addresses, delay = (paths.http, paths.grpc), paths.shutdown.delay
    return Envoy(config, paths.run_dir, addresses, paths.edge, delay, paths.hang_limits, paths.log_level)


def _server_limits(settings: EdgeSettings) -> ServerLimits:
    """Returns the limits of a worker without Envoy."""
    return ServerLimits(settings.max_body, settings.max_streams, settings.max_connection_age, settings.reflection)


async def _all(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Runs all concurrently. Raises the first failure without cancelling the others."""
    await asyncio.gather(*coroutines)


async def _after(tasks: Iterable[asyncio.Task[None]], then: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Awaits `then` after all tasks, also after failed ones."""
    await asyncio.gather(*tasks, return_exceptions=True)
    await then()
