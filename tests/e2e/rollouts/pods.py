"""Two pods with the same key, clients that call them, and what became of the calls."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

from tests.e2e.rollouts.settings import PROTOS, channels
from tests.processes import PATIENCE, Parley, environment, launch, reserved_port, started, until, wait_ready
from tests.upstream import Answer, Delay, Events, Json, Received, chunks, completion, ending

ROOT = Path(__file__).parents[3]
CALLS_PER_SECOND = float(os.environ.get("ROLLOUT_CALLS_PER_SECOND", "20"))
_DELAY = "2s"  # of the shutdown: enough for clients, which need no load balancer
_CONFIG = """\
backends:
  up: {{kind: openai, base_url: "{url}"}}
models:
  - {{id: scripted, targets: [{{backend: up}}], sessions: off}}
"""


def slow(request: Received) -> Answer:
    """Answers after a while, so that calls run at every moment."""
    if request.json.get("stream"):
        return Events([*chunks("Hel"), Delay(0.2), *chunks("lo"), Delay(0.2), *ending()])
    return Json(completion("Hello"), wait=Delay(0.1))


@dataclass(frozen=True)
class Call:
    """A call of a client; `started` and `ended` are of CLOCK_MONOTONIC. The status of success is `OK`."""

    language: str
    target: str
    setting: str
    started: float
    ended: float
    status: str
    message: str

    @property
    def channel(self) -> tuple[str, str, str]:
        """Identifies the client."""
        return self.language, self.target, self.setting


@dataclass
class Pod:
    """A `parley up` that can be started again on its ports, with its state."""

    folder: Path
    options: tuple[str, ...]
    parley: Parley

    def terminate(self) -> None:
        """Sends SIGTERM and waits for the end."""
        assert 0 == self.parley.stop()

    def start_again(self) -> None:
        """Starts the pod after its end."""
        self.parley.process = launch(*self.options, folder=self.folder, pipe=None, PARLEY_SHUTDOWN_DELAY=_DELAY).process
        wait_ready(self.parley)

    def hang_up(self) -> None:
        """Sends SIGHUP and waits until all workers are replaced and the old ones have ended."""
        old = set(self.parley.workers())
        self.parley.process.send_signal(signal.SIGHUP)
        until(lambda: not old & set(self.parley.workers()), "the old workers end")

    def kill_worker(self) -> None:
        """Kills a worker, and waits until the supervisor and Envoy have noticed."""
        os.kill(self.parley.workers()[0], signal.SIGKILL)
        self.parley.wait_for_log("ended (killed by SIGKILL); starting another")
        with self.parley.connection() as connection:  # Envoy answers after it has read the ends of its connections
            connection.request("GET", "/livez")
            connection.getresponse().read()


@contextmanager
def two_pods(folder: Path, upstream: str) -> Iterator[tuple[Pod, Pod]]:
    """Starts two pods, each with two workers and a store of its own that has the same API key."""
    config = folder / "parley.yaml"
    config.write_text(_CONFIG.format(url=upstream))
    with ExitStack() as stack:
        first = stack.enter_context(_pod(folder / "first", config))
        _copy_store(first.folder, folder / "second")
        yield first, stack.enter_context(_pod(folder / "second", config))


@contextmanager
def _pod(folder: Path, config: Path) -> Iterator[Pod]:
    folder.mkdir(exist_ok=True)
    ports = ("--http", f"127.0.0.1:{reserved_port()}", "--grpc", f"127.0.0.1:{reserved_port()}")
    options = ("--config", str(config), "--workers", "2", "--log-level", "warning", *ports)
    with started(*options, folder=folder, PARLEY_SHUTDOWN_DELAY=_DELAY) as parley:
        yield Pod(folder, options, parley)


def _copy_store(source: Path, target: Path) -> None:
    (target / "state").mkdir(mode=0o700, parents=True)
    database = apsw.Connection(str(source / "state" / "parley.db"))
    copy = apsw.Connection(str(target / "state" / "parley.db"))
    with copy.backup("main", database, "main") as backup:
        backup.step()
    copy.close()
    database.close()


@dataclass
class Clients:
    """The running clients. `marks` has the beginning of each phase."""

    output: list[Path]
    processes: list[subprocess.Popen[bytes]]
    names: set[tuple[str, str, str]]
    marks: list[tuple[str, float]] = field(default_factory=list)

    def begin(self, phase: str) -> None:
        """Begins a phase: calls that end from now on belong to it."""
        self.marks.append((phase, time.monotonic()))

    def settle(self) -> None:
        """Waits until every client has made two more calls."""
        now = time.monotonic()
        until(lambda: self._have_called_since(now), "two calls of every client")

    def _have_called_since(self, moment: float) -> bool:
        later = [call.channel for call in self.calls() if call.started > moment]
        return all(later.count(name) > 1 for name in self.names)

    def calls(self) -> list[Call]:
        """Returns the finished calls."""
        complete = (file.read_text().rpartition("\n")[0] for file in self.output)
        return [Call(**json.loads(line)) for text in complete for line in text.splitlines()]

    def finish(self) -> None:
        """Starts no more calls, and waits for the running ones."""
        for process in self.processes:
            assert process.stdin
            process.stdin.close()
        for process in self.processes:
            assert 0 == process.wait(3 * PATIENCE)

    def failures(self, phase: str) -> list[Call]:
        """Returns the calls that failed in a phase."""
        names = [name for name, _ in self.marks]
        begins = dict(self.marks)[phase]
        ends = [*(time for _, time in self.marks), float("inf")][names.index(phase) + 1]
        return [call for call in self.calls() if begins <= call.ended < ends and call.status != "OK"]


@contextmanager
def clients(first: Pod, second: Pod, folder: Path, node: Path) -> Iterator[Clients]:
    """Runs the clients of `caller.py` and `caller.mjs` against the pods.

    `first` is a pod that is never away. Clients of both pods know `second` first, so that `pick_first` has to move.
    """
    grpc_first, grpc_second = first.parley.grpc, second.parley.grpc
    plan: dict[str, Any] = {
        "channels": channels(
            {"one": f"ipv4:{grpc_first}", "two": f"ipv4:{grpc_second},{grpc_first}", "restarted": f"ipv4:{grpc_second}"}
        ),
        "http": [second.parley.http, first.parley.http],
        "key": first.parley.key,
    }
    names = {(language, one["target"], one["setting"]) for language in ("Python", "Node") for one in plan["channels"]}
    plan["interval"] = len(names) / CALLS_PER_SECOND
    commands = {
        "python": ([sys.executable, "-m", "tests.e2e.rollouts.caller"], ROOT),
        "node": (["node", "--input-type=module", "--eval", Path(__file__).with_name("caller.mjs").read_text()], node),
    }
    processes, output = [], []
    for name, (command, place) in commands.items():
        output.append(folder / name)
        with output[-1].open("wb") as file:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=file, cwd=place, env=environment(PROTOS=str(PROTOS))
            )
        assert process.stdin
        process.stdin.write(json.dumps(plan).encode() + b"\n")
        process.stdin.flush()
        processes.append(process)
    try:
        yield Clients(output, processes, names | {("Python", "two", "REST"), ("Python", "two", "parley-client")})
    finally:
        for process in processes:
            process.kill()
            process.wait()
