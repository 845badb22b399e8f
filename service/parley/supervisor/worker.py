"""A worker process: one event loop, one gRPC server. `parley up` and `parley serve` start it.

A worker reads its specification from stdin, so that no secret is in a file or an argument. It
reports on stdout with one line, `ready ADDRESS` or `error TEXT`, and prints `alive` every second while its server
answers. All other output goes to stderr.

Signals end it: SIGTERM lets running calls finish; SIGUSR1 does so too, and gives them more time, because another worker
has replaced this one. SIGUSR2 announces to callers that the pod ends, while the worker serves on; each further
SIGUSR2 requests the line `idle` as soon as no call runs. SIGTERM after another signal cuts the running calls off.
"""

import asyncio
import gc
import importlib
import os
import pickle
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from parley.logs.output import Output
from parley.rpc.server_options import ServerLimits
from parley.rpc.shutdown import GRACE_SECONDS, Shutdown

if TYPE_CHECKING:
    from parley.logs import Level
    from parley.rpc.operations import ReadReload

ALIVE = "alive"
DRAIN_SECONDS = 600.0  # how long a replaced worker may finish its running calls


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """The specification of a worker process.

    Attributes:
        config: The configuration, pickled: a worker does not validate it again.
        state_dir: The folder of the store.
        run_dir: The folder of the model servers' sockets.
        address: The address to listen on: `unix:/path.sock` or `HOST:PORT`.
        admin: The path of the admin server's socket.
        metrics: The path of the socket for metrics; None for none.
        remote_admin: The address for Envoy's admin listener, `unix:/path.sock` or `HOST:PORT`; None without one.
        log_level: The log level.
        limits: The limits of a worker without Envoy; None behind one.
        store_identity: The identity of the store; None if it is unknown yet.
        reloads: Whether SIGHUP to the supervisor has the configuration read again.
        grace: How many seconds running calls may take to finish after SIGTERM.
    """

    config: bytes
    state_dir: str
    run_dir: str
    address: str
    admin: str
    metrics: str | None = None
    remote_admin: str | None = None
    log_level: "Level" = "info"
    limits: ServerLimits | None = None
    store_identity: str | None = None
    reloads: bool = False
    grace: float = GRACE_SECONDS

    def to_bytes(self) -> bytes:
        """Returns what the worker reads: its fields, since this module has another name there."""
        return pickle.dumps({one.name: getattr(self, one.name) for one in fields(self)})

    @classmethod
    def read(cls, source: BinaryIO) -> "WorkerSpec":
        """Reads what `to_bytes` returns."""
        return cls(**pickle.load(source))  # noqa: S301 - from the parent process


def command() -> list[str]:
    """Returns the command line of a worker process."""
    return [sys.executable, "-m", "parley.supervisor.worker"]


def main() -> None:
    """Reads the specification and serves until a signal ends the worker. Exits with 1 after an `error`."""
    gc.set_threshold(100_000)  # what imports make stays alive: collections of it would take a sixth of the start
    import_application()
    spec = WorkerSpec.read(sys.stdin.buffer)
    output = Output(os.dup(1))  # it never blocks, even if the supervisor is stopped
    os.dup2(2, 1)
    try:
        _run(spec, output)
    except Exception as error:
        from parley.config import ConfigError
        from parley.core.errors import ParleyError

        text = getattr(error, "cause", None) or str(error) or repr(error)
        _report(output, f"error {' '.join(text.split())}")
        if not isinstance(error, ConfigError | ParleyError | OSError):
            raise
        sys.exit(1)


def import_application() -> None:
    """Imports what serves, while the supervisor prepares the specification."""
    importlib.import_module("parley.logs.configuration")  # first: it imports structlog without Rich
    importlib.import_module("parley.app")
    importlib.import_module("uvloop")


def _run(spec: WorkerSpec, output: Output) -> None:
    """Runs the application on uvloop."""
    import uvloop

    from parley.app import serve
    from parley.logs.configuration import configure
    from parley.logs.recent import RecentLines
    from parley.rpc.admin import AdminSockets

    recent, log = RecentLines(), Output(sys.stdout.fileno())
    configure(level=spec.log_level, output=log, recent=recent)

    async def run() -> None:
        await serve(
            pickle.loads(spec.config),  # noqa: S301 - from the parent process
            state_dir=Path(spec.state_dir),
            store_identity=spec.store_identity,
            run_dir=Path(spec.run_dir),
            address=spec.address,
            admin=AdminSockets(Path(spec.admin), spec.remote_admin),
            on_ready=lambda address: _report(output, f"ready {address}"),
            on_alive=lambda: _report(output, ALIVE),
            metrics=Path(spec.metrics) if spec.metrics else None,
            server_limits=spec.limits,
            shutdown=_shutdown(spec.grace, lambda: _report(output, "idle")),
            log_level=spec.log_level,
            recent=recent,
            log_lines_lost=lambda: log.lines_lost,
            last_reload=_last_reload(Path(spec.state_dir)) if spec.reloads else None,
        )

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def _last_reload(state_dir: Path) -> "ReadReload":
    """Returns a function that reads the record of the last reload."""
    from parley.rpc.operations import PastReload
    from parley.supervisor import reload_record

    def read() -> PastReload:
        found = reload_record.read(state_dir)
        return PastReload(found.began, found.is_done, found.error, found.changes)

    return read


def _shutdown(grace: float, on_idle: Callable[[], None]) -> Shutdown:
    """Returns a shutdown that the signals of this process request."""
    shutdown = Shutdown(grace=grace, on_idle=on_idle)

    def terminate() -> None:
        if shutdown.leave.is_set() or shutdown.stop.is_set():
            shutdown.cut.set()
        shutdown.stop.set()

    def drain() -> None:
        shutdown.grace, shutdown.replaced = DRAIN_SECONDS, True
        shutdown.stop.set()

    def leave() -> None:
        (shutdown.report_idle if shutdown.leave.is_set() else shutdown.leave).set()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, terminate)
    loop.add_signal_handler(signal.SIGUSR1, drain)
    loop.add_signal_handler(signal.SIGUSR2, leave)
    return shutdown


def _report(output: Output, line: str) -> None:
    """Reports to the supervisor, unless it has ended."""
    output.write(f"{line}\n".encode())


if __name__ == "__main__":
    main()
