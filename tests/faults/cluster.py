"""Workers as separate processes (`parley serve`), each on its own port, which can be killed and started again."""

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tests import processes

PATIENCE = 60.0
"""Seconds that a start may take."""


@dataclass
class Slot:
    """One worker with a constant address across processes. `serves` is true while it is running."""

    address: str
    command: list[str]
    log: Path
    scratch: str
    environment: dict[str, str] = field(default_factory=dict)
    serves: bool = False
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Starts the worker; returns when it serves."""
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.command,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=processes.environment(TMPDIR=self.scratch, **self.environment),
            )
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), PATIENCE)
        if not line.startswith(b"gRPC"):
            raise RuntimeError(f"a worker did not start: {self.log.read_text()[-2000:]}")
        self.serves = True

    async def kill(self) -> None:
        """Kills the parent, which would start another worker, and its children, without a graceful stop."""
        assert self.process is not None
        self.serves = False
        for pid in processes.children(self.process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        await self.process.wait()

    def worker_pids(self) -> list[int]:
        """Returns the ids of the serving processes, without the preparation, which can end after the first calls."""
        assert self.process is not None
        children = processes.children(self.process.pid)
        return [pid for pid, line in children.items() if "parley.supervisor.worker" in line]

    async def stop(self) -> None:
        """Stops the worker gracefully."""
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            await asyncio.wait_for(self.process.wait(), PATIENCE)


@dataclass
class Cluster:
    """Workers on one store, and an API key."""

    key: str
    slots: list[Slot] = field(default_factory=list)


@asynccontextmanager
async def cluster(
    folder: Path,
    upstream: str,
    store: str | None,
    workers: int,
    *,
    window: int = 20,
    environment: Sequence[dict[str, str]] = (),
) -> AsyncIterator[Cluster]:
    """Runs the workers on one state folder, or on the PostgreSQL at the URL `store`, until they are stopped.

    `window` is the number of messages of the history that are sent upstream; `environment` is that of each worker.
    """
    config = folder / "parley.yaml"
    config.write_text(_configuration(upstream, store, window))
    common = ["--config", str(config), "--state-dir", str(folder / "state")]
    made = processes.run("keys", "create", "--name", "faults", "--json", *common)
    running = Cluster(json.loads(made.stdout)["key"])
    scratch = tempfile.TemporaryDirectory(prefix="pf-")  # for files of killed workers; a short path, for sockets
    for number in range(workers):
        address = f"127.0.0.1:{processes.reserved_port()}"
        # Stopped workers resume after their lease has expired; nothing replaces them meanwhile.
        command = [processes.COMMAND, "serve", *common, "--listen", address, "--hang-timeout", "0"]
        own = environment[number] if environment else {}
        running.slots.append(Slot(address, command, folder / f"worker-{number}.log", scratch.name, own))
    try:
        await asyncio.gather(*(slot.start() for slot in running.slots))
        yield running
    except BaseException:
        for slot in running.slots:
            if slot.log.exists():
                sys.stderr.write(f"--- {slot.log}\n{slot.log.read_text()[-3000:]}\n")
        raise
    finally:
        await asyncio.gather(*(slot.stop() for slot in running.slots))
        scratch.cleanup()


def _configuration(upstream: str, store: str | None, window: int) -> str:
    model = {
        "id": "echo",
        "targets": [{"backend": "echo"}],
        "history": {"max_messages": window},
        "timeouts": {"stream_idle": "120s"},  # a suspended worker must not attribute the pause to its backend
    }
    backends = {"echo": {"kind": "openai", "base_url": upstream}}
    chosen = {"store": {"kind": "postgres", "url": store}} if store else {}
    return yaml.safe_dump({"backends": backends, "models": [model], **chosen})
