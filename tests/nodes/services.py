"""The workers and Envoys of the drill, as `parley serve --behind-edge` and `parley edge run` start them."""

import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

from tests.nodes.network import PATIENCE, Machine
from tests.processes import COMMAND, environment, until

WORKER_PORT = 50051
HTTP_PORT = 8080
_NAME = "workers.drill"


@dataclass
class Worker:
    """A worker, which has its machine's state folder and configuration."""

    machine: Machine
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def config(self) -> Path:
        """The file of the configuration."""
        return self.folder / "parley.yaml"

    @property
    def log(self) -> Path:
        """The file of the log."""
        return self.folder / "worker.log"

    def start(self) -> None:
        """Starts the worker; returns when it serves."""
        options = ["--config", str(self.config), "--state-dir", str(self.folder / "state"), "--insecure"]
        address = f"{self.machine.address}:{WORKER_PORT}"
        before = self._starts()
        self.process = self.machine.start(
            [COMMAND, "serve", *options, "--behind-edge", "--listen", address, "--hang-timeout", "30s"],
            self.log,
            **environment(),
        )
        until(lambda: self._starts() > before, f"a worker serves, see {self.log}")

    def replace(self) -> None:
        """Replaces the worker: SIGTERM, which drains it, then another process."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE)
        self.start()

    def _starts(self) -> int:
        return self.log.read_text().count("Ctrl-C stops it") if self.log.exists() else 0


@dataclass
class Edge:
    """An Envoy."""

    machine: Machine
    folder: Path
    workers: Sequence[Worker]
    process: subprocess.Popen[bytes] | None = None
    options: Sequence[str] = ()

    @property
    def url(self) -> str:
        """The base URL of REST."""
        return f"http://{self.machine.address}:{HTTP_PORT}"

    def start(self) -> None:
        """Starts Envoy; returns when it has found workers."""
        self.machine.name_hosts({_NAME: [worker.machine.address for worker in self.workers]})
        listeners = ["--http", f"0.0.0.0:{HTTP_PORT}", "--grpc", "0.0.0.0:50052", "--insecure", "--threads", "1"]
        found = ["--workers", f"dns:{_NAME}:{WORKER_PORT}"]
        self.process = self.machine.start(
            [COMMAND, "edge", "run", str(self.folder / "edge"), *found, *listeners, *self.options],
            self.folder / "envoy.log",
            **environment(),
        )
        until(self.is_ready, f"Envoy is ready, see {self.folder / 'envoy.log'}")

    def replace(self) -> None:
        """Replaces Envoy as Kubernetes does: drain, SIGTERM, then another process."""
        assert self.process is not None
        drain = ["ip", "netns", "exec", self.machine.name, COMMAND, "edge", "drain", str(self.folder / "edge")]
        subprocess.run(drain, check=True, timeout=PATIENCE, env=environment())
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE)
        self.start()

    def is_ready(self) -> bool:
        """Returns whether `/readyz` is 200, as a load balancer asks it."""
        connection = HTTPConnection(self.machine.address, HTTP_PORT, timeout=2)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()
