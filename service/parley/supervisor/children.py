"""The child processes of Parley besides the workers: model servers of llama.cpp, Envoy."""

import asyncio
import os
from asyncio.subprocess import Process
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from parley.backends.llama_cpp import command as llama_cpp
from parley.logs import Level
from parley.supervisor import environment, envoy, envoy_admin
from parley.supervisor.address_limit import AddressLimit
from parley.supervisor.addresses import Address
from parley.supervisor.admin_sockets import remote_admin_socket
from parley.supervisor.certificates import Certificates
from parley.supervisor.edge_settings import EdgeSettings
from parley.supervisor.liveness import HangLimits
from parley.supervisor.probes import poll, probe_socket, status_line
from parley.supervisor.process import Child, print_event, print_notice, spawn
from parley.supervisor.refused_calls import RefusedCalls, report_closed

_SETTLE_SECONDS = 10.0
# A server of llama.cpp answers no check while all of its threads compute for callers.
_BUSY_FACTOR = 8


class ModelServer(Child):
    """llama.cpp's server for one backend of the configuration, with the settings of its command line."""

    def __init__(self, name: str, settings: Mapping[str, str], run_dir: Path, hang_limits: HangLimits | None) -> None:
        patient = hang_limits and replace(hang_limits, busy=_BUSY_FACTOR * hang_limits.busy)
        super().__init__(f'the model server "{name}"', patient, run_dir)
        self.model = Path(settings["model"])
        self._argv = llama_cpp.command(run_dir, name, settings)
        self._socket = llama_cpp.socket_path(run_dir, name)

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
    """Envoy. While it serves, `http`, `grpc` and `settings.admin` are the bound addresses, which restarts keep.

    Args:
        config: Its configuration, rendered by `envoy.render_in`.
        run_dir: The run folder.
        addresses: The addresses of the REST and the gRPC listener.
        settings: The settings of the listeners.
        drain_seconds: The duration of a graceful drain.
        hang_limits: When the process counts as hanging; None for never.
        log_level: The lowest level of the lines that are forwarded.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the settings of Envoy
        self,
        config: str,
        run_dir: Path,
        addresses: tuple[Address, Address],
        settings: EdgeSettings,
        drain_seconds: float,
        hang_limits: HangLimits | None,
        log_level: Level = "info",
    ) -> None:
        super().__init__("Envoy", hang_limits, run_dir)
        self.http, self.grpc = addresses
        self.settings, self._drain_seconds = settings, drain_seconds
        self._config, self._file = config, run_dir / "envoy.json"
        self._endpoints, self._admin = envoy.endpoints(run_dir), envoy.admin_socket(run_dir)
        self._files: list[Certificates | AddressLimit] = [Certificates(settings.tls, run_dir)] if settings.tls else []
        if settings.address_limit:
            self._files.append(AddressLimit(settings.address_limit, run_dir, lambda: (self.http, self.grpc)))
        self._following: list[asyncio.Task[None]] = []
        self._log_level, self._refused = log_level, RefusedCalls(print_event, log_level)
        self.set_workers([])

    @property
    def has_lost_socket(self) -> bool:
        """Reports whether the admin socket of the running Envoy was removed, after which it takes no more changes."""
        return self.up.is_set() and not _exists(self._admin)

    @property
    def admin(self) -> Path:
        """The socket of Envoy's admin interface."""
        return self._admin

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
        """Writes the configuration, starts Envoy and forwards its log."""
        for file in self._files:
            file.publish()
        self.restore_files()
        self._admin.unlink(missing_ok=True)
        self._file.write_text(envoy.with_ports(self._config, self._ports()), encoding="utf-8")
        argv = envoy.command(self._file, self._drain_seconds, level=self._log_level)
        process = await spawn(argv, environment.for_envoy(), cwd=envoy.edge_dir())
        self.listen(process, self._forward_log)
        return process

    def _ports(self) -> dict[str, int]:
        addresses = {"http": self.http, "grpc": self.grpc, "admin": self.settings.admin}
        return {name: address.port for name, address in addresses.items() if address is not None}

    async def probe(self) -> None:
        """Requests the state of the server periodically."""
        await probe_socket(self._admin, "/ready", self.record_answer)

    def on_serving(self) -> None:
        """Begins to publish changed certificates and refused addresses, and to report closed connections."""
        self._following = [asyncio.create_task(file.follow()) for file in self._files]
        self._following.append(asyncio.create_task(report_closed(self._refused, self._admin)))

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
        """Forwards a log line, except while Envoy stops. Its access log has refused calls."""
        if self.stopping:
            return
        if not self._refused.write(line):
            print_notice(f"envoy: {line}")

    async def serving(self, _process: Process) -> None:
        """Polls until Envoy is ready, then reads the bound ports."""
        await poll(lambda: envoy_admin.ready(self._admin))
        ports = await envoy_admin.bound_ports(self._admin)
        self.http = self.http._replace(port=ports["http"])
        self.grpc = self.grpc._replace(port=ports["grpc"])
        if self.settings.admin:
            self.settings = replace(self.settings, admin=self.settings.admin._replace(port=ports["admin"]))


def _exists(path: Path) -> bool:
    """Reports whether a file or socket exists; a property of a running process, so that it must not block."""
    return os.path.lexists(path)
