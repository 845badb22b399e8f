"""A worker process: one event loop, one gRPC server. `parley up` and `parley serve` start it.

A worker reads its specification as one JSON object from stdin, so that no secret is in a file or an argument. It
reports on stdout with one line, `ready ADDRESS` or `error TEXT`. All other output goes to stderr.
"""

import asyncio
import json
import os
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from parley.config import Config
from parley.logs import Level
from parley.rpc.server_options import ServerLimits

DRAIN_SECONDS = 600.0  # how long a replaced worker may finish its running calls


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """The specification of a worker process.

    Attributes:
        config: The configuration, as JSON.
        state_dir: The folder of the store.
        run_dir: The folder of the model servers' sockets.
        address: The address to listen on: `unix:/path.sock` or `HOST:PORT`.
        admin: The path of the admin server's socket.
        log_level: The log level.
        limits: The limits of a worker without Envoy; None behind one.
    """

    config: str
    state_dir: str
    run_dir: str
    address: str
    admin: str
    log_level: Level = "info"
    limits: ServerLimits | None = None

    def to_json(self) -> bytes:
        """Returns the JSON object that the worker reads."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def read(cls, source: TextIO) -> "WorkerSpec":
        """Reads the JSON object of `to_json`."""
        values = json.load(source)
        limits = values.pop("limits")
        return cls(**values, limits=ServerLimits(**limits) if limits else None)


def command() -> list[str]:
    """Returns the command line of a worker process."""
    return [sys.executable, "-m", "parley.supervisor.worker"]


def main() -> None:
    """Reads the specification and serves until SIGTERM, or SIGUSR1 if replaced. Exits with 1 after an `error`."""
    spec = WorkerSpec.read(sys.stdin)
    output = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    try:
        _run(spec, output)
    except Exception as error:
        from parley.config import ConfigError
        from parley.core.errors import ParleyError

        text = getattr(error, "cause", None) or str(error) or repr(error)
        output.write(f"error {' '.join(text.split())}\n")
        if not isinstance(error, ConfigError | ParleyError | OSError):
            raise
        sys.exit(1)


def _run(spec: WorkerSpec, output: TextIO) -> None:
    """Runs the application on uvloop."""
    import uvloop

    from parley import logs
    from parley.app import GRACE_SECONDS, serve

    logs.configure(level=spec.log_level)

    async def run() -> None:
        stop, drain = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        loop.add_signal_handler(signal.SIGUSR1, _set, drain, stop)
        await serve(
            Config.model_validate_json(spec.config),
            state_dir=Path(spec.state_dir),
            run_dir=Path(spec.run_dir),
            address=spec.address,
            admin=Path(spec.admin),
            on_ready=lambda address: _report(output, address),
            stop=stop,
            server_limits=spec.limits,
            grace=lambda: DRAIN_SECONDS if drain.is_set() else GRACE_SECONDS,
        )

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


def _set(*events: asyncio.Event) -> None:
    for event in events:
        event.set()


def _report(output: TextIO, address: str) -> None:
    """Reports that the worker serves."""
    output.write(f"ready {address}\n")


if __name__ == "__main__":
    main()
