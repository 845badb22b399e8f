"""The child processes of Parley: workers, model servers of llama.cpp, Envoy."""

import asyncio
import os
import signal
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from parley.config import Config, LlamaCppBackend
from parley.supervisor import environment, envoy, envoy_admin
from parley.supervisor.address_limit import AddressLimit
from parley.supervisor.addresses import Address
from parley.supervisor.admin_sockets import remote_admin_socket
from parley.supervisor.certificates import Certificates
from parley.supervisor.edge_settings import EdgeSettings
from parley.supervisor.errors import CommandError
from parley.supervisor.liveness import HangLimits
from parley.supervisor.probes import poll, probe_socket, status_line
from parley.supervisor.process import Child, print_call, print_notice, spawn
from parley.supervisor.worker import ALIVE, DRAIN_SECONDS, WorkerSpec, command

_SETTLE_SECONDS = 10.0
# A server of llama.cpp answers no check while all of its threads compute for callers.
_BUSY_FACTOR = 8


class Worker(Child):
    """One worker. Each of its processes listens on a new socket, so that Envoy never confuses two of them.

    Args:
        name: The name in notices.
        config: The configuration, which decides the process's environment.
        spec: Returns the specification of the next process.
        changed: Called after each change of `address`, which is None while the worker does not serve.
        hang_limits: When the process counts as hanging; None for never.
        folder: The folder of its sockets.
    """

    def __init__(  # noqa: PLR0913 - the parts of a worker
        self,
        name: str,
        config: Config,
        spec: Callable[[], Awaitable[WorkerSpec]],
        changed: Callable[[], None],
        *,
        hang_limits: HangLimits | None,
        folder: Path,
    ) -> None:
        super().__init__(name, hang_limits, folder)
        self._config = config
        self.address: str | None = None
        self._spec = spec
        self._changed = changed
        self._bound = ""
        self._reports: asyncio.Queue[str] = asyncio.Queue()

    async def spawn(self) -> Process:
        """Starts the process and writes its specification to its stdin."""
        process = await spawn(command(), environment.for_worker(self._config), reports=True)
        self._reports = asyncio.Queue()
        self.listen(process, self._on_report, keep=False)
        assert process.stdin  # noqa: S101 - for the type checker
        try:
            spec = await self._spec()  # the process imports its modules meanwhile
        except BaseException:
            process.kill()
            raise
        with suppress(ConnectionError):
            process.stdin.write(spec.to_json())
            await process.stdin.drain()
            process.stdin.close()
        return process

    async def serving(self, process: Process) -> None:
        """Waits until the worker reports that it serves. Raises CommandError if it reports an error."""
        answer, _, text = (await self._report()).partition(" ")
        if answer == "ready":
            self._bound = text
            return
        await process.wait()
        raise CommandError(text or f"it ended before it served (exit code {process.returncode}); see its log")

    def on_serving(self) -> None:
        """Publishes the address to Envoy."""
        self.address = self._bound
        self._changed()

    def on_stopped(self) -> None:
        """Withdraws the address from Envoy."""
        if self.address is not None:
            self.address = None
            self._changed()

    @property
    def has_lost_socket(self) -> bool:
        """Reports whether the socket on which the worker serves was removed, so that nothing can connect to it."""
        return self.address is not None and self.address.startswith("unix:") and not _exists(Path(self.address[5:]))

    async def drain(self, withdrawn: Callable[[], Awaitable[None]]) -> None:
        """Withdraws the worker from Envoy and stops it after its running calls have finished.

        Args:
            withdrawn: Waits until Envoy sends the worker no more calls. Streams of health that the worker then ends
                begin again at another one.
        """
        self.stop_restarts()
        self.on_stopped()
        await withdrawn()
        await self.stop(DRAIN_SECONDS + 10, signal.SIGUSR1)

    def leave(self) -> None:
        """Has the worker report NOT_SERVING to callers, and serve on."""
        self.stop_restarts()
        self.send(signal.SIGUSR2)

    async def wait_idle(self) -> None:
        """Waits until no call runs at the worker, after `leave`, or until the process ends."""
        self.send(signal.SIGUSR2)
        await self._report()

    def _on_report(self, line: str) -> None:
        """Handles a line of the worker; see `parley.supervisor.worker`."""
        if line == ALIVE:
            self.record_answer()
        else:
            self._reports.put_nowait(line)

    async def _report(self) -> str:
        """Returns the next line of the worker that is not a sign of life; an empty one after its end."""
        report = asyncio.create_task(self._reports.get())
        assert self._reader_task is not None  # noqa: S101 - for the type checker
        await asyncio.wait({report, self._reader_task}, return_when=asyncio.FIRST_COMPLETED)
        if report.done():
            return report.result()
        report.cancel()
        return ""


class ModelServer(Child):
    """llama.cpp's server for one backend of the configuration."""

    def __init__(self, name: str, config: LlamaCppBackend, run_dir: Path, hang_limits: HangLimits | None) -> None:
        from parley.backends.llama_cpp import launch as llama_cpp_launch

        patient = hang_limits and replace(hang_limits, busy=_BUSY_FACTOR * hang_limits.busy)
        super().__init__(f'the model server "{name}"', patient, run_dir)
        self._argv = llama_cpp_launch.command(run_dir, name, config)
        self._socket = llama_cpp_launch.socket_path(run_dir, name)

    async def spawn(self) -> Process:
        """Starts the process on a fresh socket."""
        self._socket.unlink(missing_ok=True)
        process = await spawn(self._argv, environment.for_model_server())
        self.listen(process)
        return process

    async def serving(self, _process: Process) -> None:
        """Polls the health check until the model is loaded."""
        await poll(self._is_loaded)

    async def probe(self) -> None:
        """Requests the health of the server periodically."""
        await probe_socket(self._socket, "/health", self.record_answer)

    @property
    def has_lost_socket(self) -> bool:
        """Reports whether the socket of the running server was removed."""
        return self.up.is_set() and not _exists(self._socket)

    async def _is_loaded(self) -> bool:
        """Reports whether llama.cpp's /health returns 200, which it does once the model is loaded."""
        return " 200 " in await status_line(self._socket, "/health")


class Envoy(Child):
    """Envoy. While it serves, `http`, `grpc` and `settings.admin` are the bound addresses, which restarts keep."""

    def __init__(
        self,
        run_dir: Path,
        addresses: tuple[Address, Address],
        settings: EdgeSettings,
        drain_seconds: float,
        hang_limits: HangLimits | None,
    ) -> None:
        super().__init__("Envoy", hang_limits, run_dir)
        self.http, self.grpc = addresses
        self.settings, self._drain_seconds = settings, drain_seconds
        self._config = run_dir / "envoy.yaml"
        self._endpoints = run_dir / "workers.yaml"
        self._admin = run_dir / "envoy-admin.sock"
        self._files: list[Certificates | AddressLimit] = [Certificates(settings.tls, run_dir)] if settings.tls else []
        if settings.address_limit:
            self._files.append(AddressLimit(settings.address_limit, run_dir, lambda: (self.http, self.grpc)))
        self._following: list[asyncio.Task[None]] = []
        self.set_workers([])

    @property
    def has_lost_socket(self) -> bool:
        """Reports whether the admin socket of the running Envoy was removed, after which it takes no more changes."""
        return self.up.is_set() and not _exists(self._admin)

    def set_workers(self, addresses: Iterable[str]) -> None:
        """Routes calls to the workers at these addresses (`unix:/path.sock`) only."""
        self._sockets = [Path(address.removeprefix("unix:")) for address in addresses]
        self._write_endpoints()

    def restore_files(self) -> None:
        """Writes the list of the workers again if it was removed."""
        if not _exists(self._endpoints):
            self._write_endpoints()

    def _write_endpoints(self) -> None:
        try:
            envoy.write_endpoints(self._endpoints, self._sockets)
            if self.settings.admin:
                admin = map(remote_admin_socket, self._sockets)
                envoy.write_endpoints(envoy.admin_endpoints(self._endpoints), admin, "admin_workers")
        except OSError as error:
            print_notice(f"{self._endpoints} cannot be written ({error.strerror}); Envoy keeps its current workers")

    async def wait_applied(self) -> None:
        """Waits until Envoy uses exactly the current workers, for at most 10 seconds."""
        with suppress(TimeoutError):
            await asyncio.wait_for(poll(self._is_applied), _SETTLE_SECONDS)

    async def _is_applied(self) -> bool:
        with suppress(OSError):
            return await envoy_admin.workers(self._admin) == dict.fromkeys(self._sockets, True)
        return False

    async def spawn(self) -> Process:
        """Renders the configuration, starts Envoy and forwards its log."""
        for file in self._files:
            file.publish()
        self.restore_files()
        self._admin.unlink(missing_ok=True)
        text = envoy.render(
            http=self.http, grpc=self.grpc, endpoints=self._endpoints, admin=self._admin, settings=self.settings
        )
        self._config.write_text(text, encoding="utf-8")
        argv = envoy.command(self._config, self._drain_seconds)
        process = await spawn(argv, environment.for_envoy(), cwd=envoy.edge_dir())
        self.listen(process, self._forward_log)
        return process

    async def probe(self) -> None:
        """Requests the state of the server periodically."""
        await probe_socket(self._admin, "/ready", self.record_answer)

    def on_serving(self) -> None:
        """Begins to publish changed certificates and refused addresses."""
        self._following = [asyncio.create_task(file.follow()) for file in self._files]

    def on_stopped(self) -> None:
        """Publishes nothing more."""
        for task in self._following:
            task.cancel()

    async def drain(self, *, graceful: bool) -> None:
        """Sends callers away, then accepts no more connections. Calls on existing connections go on.

        Args:
            graceful: Whether connections are accepted meanwhile, so that load balancers find out: during the drain
                time more and more responses end their connection (GOAWAY, or `connection: close`).
        """
        self.stop_restarts()
        with suppress(OSError):
            if graceful:
                await envoy_admin.drain_listeners(self._admin)
                await self.wait_end(self._drain_seconds)
            await envoy_admin.close_listeners(self._admin)

    async def traffic(self) -> tuple[int, int]:
        """Returns the open connections of callers, and the number of their requests so far; zeros without Envoy."""
        with suppress(OSError):
            return await envoy_admin.traffic(self._admin)
        return 0, 0

    def _forward_log(self, line: str) -> None:
        """Forwards a log line, except while Envoy stops. The lines of its scripts are those of refused calls."""
        if self.stopping:
            return
        call = envoy.refused_call(line)
        if call is None:
            print_notice(f"envoy: {line}")
        else:
            print_call(call)

    async def serving(self, _process: Process) -> None:
        """Polls until Envoy is ready, then reads the bound ports."""
        await poll(lambda: envoy_admin.ready(self._admin))
        ports = await envoy_admin.bound_ports(self._admin)
        self.http = self.http._replace(port=ports["http"])
        self.grpc = self.grpc._replace(port=ports["grpc"])
        if self.settings.admin:
            self.settings = replace(self.settings, admin=self.settings.admin._replace(port=ports["admin"]))


def model_backends(config: Config) -> dict[str, LlamaCppBackend]:
    """Returns the llama.cpp backends that a configured model uses, by name."""
    used = {target.backend for model in config.models for target in model.targets}
    found = ((name, backend) for name, backend in config.backends.items() if name in used)
    return {name: backend for name, backend in found if isinstance(backend, LlamaCppBackend)}


def _exists(path: Path) -> bool:
    """Reports whether a file or socket exists; a property of a running process, so that it must not block."""
    return os.path.lexists(path)
