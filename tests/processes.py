"""The real `parley` command as a process: started as a user would, observed, and always stopped.

with started(folder, "--config", str(file)) as parley:
    answer = parley.chat("Hello", model="scripted")
    os.kill(parley.workers()[0], signal.SIGKILL)
assert 0 == parley.code
"""

import io
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

from parley.cli.main import main

PATIENCE = 60.0
"""Time limit of every wait, in seconds; only a failing test reaches it."""
ANY_PORTS = ("--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0")
"""Options of `parley up` that select free ports."""
COMMAND = str(Path(sys.executable).with_name("parley"))
_RESERVATIONS: list[socket.socket] = []


def environment(**more: str) -> dict[str, str]:
    """Returns the environment of this process without `PARLEY_…` variables, updated by `more`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PARLEY_")}
    return kept | {"PARLEY_METRICS": "127.0.0.1:0"} | more


def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Runs `parley` to its end; `more` are environment variables."""
    return subprocess.run(
        [COMMAND, *arguments], env=environment(**more), capture_output=True, text=True, check=False, timeout=PATIENCE
    )


def run_here(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Runs `parley` in this process, which saves the second that a new process takes to start.

    Not for `up` and `serve` if they start, because they change their process.
    """
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    before = dict(os.environ)
    code: Any = 0
    try:
        os.environ.clear()
        os.environ.update(environment(**more))
        # In a thread, because both the command and the test may have an event loop.
        with redirect_stdout(out), redirect_stderr(err), ThreadPoolExecutor(1) as thread:
            thread.submit(main, arguments).result(PATIENCE)
    except SystemExit as ended:
        code = ended.code or 0
    finally:
        os.environ.clear()
        os.environ.update(before)
    printed = (stream.buffer.getvalue().decode() for stream in (out, err) if isinstance(stream.buffer, io.BytesIO))
    return subprocess.CompletedProcess(arguments, code, *printed)


def reserved_port() -> int:
    """Returns a free port of 127.0.0.1, which the kernel selects and keeps from all others until this process ends.

    A bound socket that does not listen reserves it. Servers can bind it, because they set SO_REUSEADDR; a server that
    is down refuses connections.
    """
    reservation = socket.socket()
    reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reservation.bind(("127.0.0.1", 0))
    _RESERVATIONS.append(reservation)
    port: int = reservation.getsockname()[1]
    return port


def until(holds: Callable[[], object], what: str) -> None:
    """Polls until the condition holds. Raises AssertionError after a minute."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(0.02)


@dataclass
class Parley:
    """A running `parley up`. `code` is its exit code after its end; `output` is stdout, `log` is stderr."""

    process: subprocess.Popen[bytes]
    folder: Path
    http: str = ""
    grpc: str = ""
    metrics: str = ""
    code: int | None = None

    @property
    def output(self) -> str:
        """Returns the content of stdout."""
        return (self.folder / "output").read_text()

    @property
    def log(self) -> str:
        """Returns the content of stderr."""
        return (self.folder / "log").read_text()

    @property
    def key(self) -> str:
        """Returns the API key of the first run, which a terminal shows; otherwise a file has it."""
        match = re.search(r"Your first API key is in (.*)|(sk-[A-Za-z0-9_-]{43})", self.output)
        assert match, self.output
        return match[2] or Path(match[1]).read_text().strip()

    def children(self) -> dict[int, str]:
        """Returns its child processes: process id to command line."""
        return children(self.process.pid)

    def workers(self) -> list[int]:
        """Returns the process ids of the workers."""
        return [pid for pid, line in self.children().items() if "parley.supervisor.worker" in line]

    def request(self, method: str, path: str, body: Any = None, key: str | None = None) -> tuple[int, Any]:
        """Sends one REST call; returns the status and the JSON."""
        with self.connection() as connection:
            connection.request(method, path, None if body is None else json.dumps(body), self.headers(key))
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def chat(self, question: str, **fields: Any) -> str:
        """Sends a question without streaming; returns the text of the answer."""
        body = {"messages": [{"role": "user", "content": question}], **fields}
        status, answer = self.request("POST", "/v1/chat/completions", body)
        assert 200 == status, (answer, self.log)
        return str(answer["choices"][0]["message"]["content"])

    def models(self) -> list[str]:
        """Returns the ids of the models."""
        return [model["id"] for model in self.request("GET", "/v1/models")[1]["data"]]

    def headers(self, key: str | None = None) -> dict[str, str]:
        """Returns the headers of every call."""
        return {"Authorization": f"Bearer {key or self.key}", "Content-Type": "application/json"}

    def scrape(self) -> str:
        """Returns the metrics, in Prometheus' text format."""
        with urlopen(f"{self.metrics}/metrics", timeout=PATIENCE) as response:
            return str(response.read().decode())

    @contextmanager
    def connection(self, source: str | None = None) -> Iterator[HTTPConnection]:
        """Returns a connection to the REST listener, from the address `source` if it is given."""
        address = (source, 0) if source is not None else None
        connection = HTTPConnection(urlsplit(self.http).netloc, timeout=PATIENCE, source_address=address)
        try:
            yield connection
        finally:
            connection.close()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Sends a signal and waits for the end; returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.code = self.process.wait(PATIENCE)
        return self.code

    def end(self) -> None:
        """Stops it by a second signal after it has received the first, without a graceful end.

        Tests of a graceful end call `stop`.
        """
        notice = "repeat the signal to stop at once"
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            until(lambda: notice in self.log or self.process.poll() is not None, f"the log has: {notice}\n{self.log}")
        self.stop()

    def wait_for_log(self, text: str) -> None:
        """Waits until the log has this text."""
        until(lambda: text in self.log, f"the log has: {text}\n{self.log}")


@contextmanager
def started(*options: str, folder: Path | None = None, **more: str) -> Iterator[Parley]:
    """Runs `parley up` on free ports with its state under `folder` (default: a new one), until it serves.

    By default it has one worker and no shutdown delay, to be fast. If it does not serve, or the test fails, its log is
    printed. At the end all of its processes are stopped.
    """
    with tempfile.TemporaryDirectory(prefix="parley-test-") as made:
        parley = launch(*options, folder=folder or Path(made), pipe=None, **more)
        try:
            wait_ready(parley)
            yield parley
        except BaseException:
            sys.stderr.write(f"--- output of parley up\n{parley.output}--- its log\n{parley.log}")
            raise
        finally:
            with left_behind(parley.children()):
                parley.end()


def launch(*options: str, folder: Path, pipe: int | None = None, **more: str) -> Parley:
    """Starts `parley up` without waiting. Its output and log go to `pipe`, if given."""
    (folder / "ready.json").unlink(missing_ok=True)  # a killed Parley may leave one
    with (folder / "output").open("wb") as output, (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            up_command(folder, options),
            env=environment(**{"PARLEY_WORKERS": "1", "PARLEY_SHUTDOWN_DELAY": "0"} | more),
            stdin=subprocess.DEVNULL,
            stdout=output if pipe is None else pipe,
            stderr=log if pipe is None else pipe,
            cwd=folder,
        )
    return Parley(process, folder)


def up_command(folder: Path, options: Sequence[str]) -> list[str]:
    """Returns the command line, with free ports and paths in the folder unless options set them."""
    chosen = dict(zip(options[::2], options[1::2], strict=True))
    defaults = {
        "--state-dir": str(folder / "state"),
        "--ready-file": str(folder / "ready.json"),
        "--http": "127.0.0.1:0",
        "--grpc": "127.0.0.1:0",
    }
    return [COMMAND, "up", *(word for pair in (defaults | chosen).items() for word in pair)]


def wait_ready(parley: Parley) -> None:
    """Waits for the ready file, and reads the addresses from it."""
    ready = parley.folder / "ready.json"
    until(lambda: ready.exists() or parley.process.poll() is not None, f"the ready file\n{parley.log}")
    assert parley.process.poll() is None, f"parley up has ended\n{parley.log}"
    addresses = json.loads(ready.read_text())
    assert parley.process.pid == addresses["pid"]
    parley.http, parley.grpc, parley.metrics = addresses["http"], addresses["grpc"], addresses.get("metrics", "")


@contextmanager
def left_behind(processes: Iterable[int]) -> Iterator[None]:
    """Observes processes, none of which may remain at the end. Kills those that do, then raises AssertionError."""
    watched = {pid: descriptor for pid in processes if (descriptor := _watch(pid)) is not None}
    try:
        yield
        left = [pid for pid, descriptor in watched.items() if not select.select([descriptor], [], [], 10)[0]]
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        assert [] == left, "processes were left behind"
    finally:
        for descriptor in watched.values():
            os.close(descriptor)


def _watch(pid: int) -> int | None:
    """Returns a descriptor that becomes readable when the process ends; None if it has ended."""
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def children(parent: int) -> dict[int, str]:
    """Returns the child processes, read from /proc."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found
