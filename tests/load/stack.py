"""Starts and stops the upstream, the floor, and a Parley with a configuration for the benchmark."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from parley.supervisor import environment
from tests.load import accounting

KINDS = ("unary", "burst", "paced")
COALESCED = "coalesced"
"""Paced answers of a model with `coalesce`."""
SESSIONS = ("off", "auto")
START_SECONDS = 60.0
STOP_SECONDS = 20.0
_ROOT = Path(__file__).parents[2]


class StackError(Exception):
    """A process of the stack did not start, or ended too early; the text is its last output."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """The running upstream: its address (`127.0.0.1:9000`) and its process id."""

    address: str
    pid: int


@dataclass(frozen=True, slots=True)
class Stack:
    """A running Parley or floor: its addresses (`127.0.0.1:8080`), an API key, and the first process's id.

    `began` is the time of its start on the monotonic clock. Only a Parley has `metrics`, the URL of that listener, and
    `state`, its state folder.
    """

    rest: str
    grpc: str
    key: str
    pid: int
    began: float = 0.0
    metrics: str = ""
    state: Path = Path()


@dataclass(frozen=True, slots=True)
class Stacks:
    """What a benchmark of calls needs: the upstream, and a Parley and the floor that send it their requests."""

    upstream: Upstream
    parley: Stack
    floor: Stack


def model_id(kind: str, sessions: str) -> str:
    """Returns the id of the model with this kind of answer, with or without sessions."""
    return f"{kind}-{sessions}"


def configuration(address: str, more: Mapping[str, Any] = MappingProxyType({})) -> str:
    """Returns the YAML configuration for an upstream at this address, with `more` sections."""
    models: list[dict[str, Any]] = [
        {"id": model_id(kind, sessions), "targets": [{"backend": "bench", "model": kind}], "sessions": sessions}
        for kind in KINDS
        for sessions in SESSIONS
    ]
    target = {"backend": "bench", "model": COALESCED}
    models.append({"id": model_id(COALESCED, "off"), "targets": [target], "sessions": "off", "coalesce": "50ms"})
    backends = {"bench": {"kind": "openai", "base_url": f"http://{address}/v1"}}
    return yaml.safe_dump({"backends": backends, "models": models, **more})


@contextmanager
def running(workers: int) -> Iterator[Stacks]:
    """Runs everything. Raises StackError."""
    with upstream() as source, parley(source.address, workers) as stack, floor(source.address, stack.key) as bare:
        yield Stacks(source, stack, bare)


@contextmanager
def upstream() -> Iterator[Upstream]:
    """Runs the upstream process. Raises StackError."""
    command = [sys.executable, "-m", "tests.load.upstream"]
    with subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            line = process.stdout.readline()
            if not line:
                raise StackError("the upstream did not start")
            yield Upstream(f"127.0.0.1:{int(line)}", process.pid)
        finally:
            process.terminate()


@contextmanager
def parley(
    upstream_address: str, workers: int | None = None, more: Mapping[str, Any] = MappingProxyType({})
) -> Iterator[Stack]:
    """Runs `parley up` on free ports, with a new database; yields its addresses and a key. Raises StackError.

    Args:
        upstream_address: The address of the upstream.
        workers: The number of workers; None for the default.
        more: Further sections of the configuration.
    """
    with tempfile.TemporaryDirectory(prefix="parley-bench-") as name:
        folder = Path(name)
        (folder / "parley.yaml").write_text(configuration(upstream_address, more))
        common = ["--config", str(folder / "parley.yaml"), "--state-dir", str(folder / "state")]
        key = _create_key(common)
        ready, log = folder / "ready.json", folder / "log"
        ports = [word for option in ("--http", "--grpc", "--metrics") for word in (option, "127.0.0.1:0")]
        chosen = ["--workers", str(workers)] if workers else []
        with log.open("wb") as output:
            command = [_command(), "up", *common, *ports, "--ready-file", str(ready), *chosen]
            began = time.monotonic()
            process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder, env=_environment())
        try:
            addresses = _wait(process, ready, log)
            rest, metrics = addresses["http"].removeprefix("http://"), addresses["metrics"]
            yield Stack(rest, addresses["grpc"], key, process.pid, began, metrics, folder / "state")
        finally:
            _stop(process)


@contextmanager
def floor(upstream_address: str, key: str) -> Iterator[Stack]:
    """Runs the bare servicer of `tests.load.floor` behind Envoy, with Parley's key. Raises StackError."""
    command = [sys.executable, "-m", "tests.load.floor", upstream_address]
    # As a worker's. A worker starts no process, and the floor starts Envoy.
    variables = environment.behind_envoy(_environment()) | {"GRPC_ENABLE_FORK_SUPPORT": "0"}
    process = subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=variables)
    assert process.stdin
    assert process.stdout
    try:
        process.stdin.write(f"{key}\n".encode())
        process.stdin.close()
        line = process.stdout.readline()
        if not line:
            raise StackError("the floor did not start")
        yield Stack(**json.loads(line), key=key, pid=process.pid)
    finally:
        _stop(process)
        process.stdout.close()


def _command() -> str:
    """Returns the path of the `parley` command beside the running Python."""
    return str(Path(sys.executable).with_name("parley"))


def _environment() -> dict[str, str]:
    """Returns the environment without variables that would change the stack."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PARLEY_")}


def _create_key(common: list[str]) -> str:
    """Creates an API key. Raises StackError."""
    command = [_command(), "keys", "create", "--name", "bench", "--plan", "pro", "--json", *common]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
    if done.returncode:
        raise StackError(f"`parley keys create` failed: {done.stderr or done.stdout}")
    return str(json.loads(done.stdout)["key"])


def _wait(process: subprocess.Popen[bytes], ready: Path, log: Path) -> dict[str, Any]:
    """Waits for the ready file and returns its content. Raises StackError."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        if ready.exists() and (text := ready.read_text()):
            return dict(json.loads(text))
        time.sleep(0.005)
    raise StackError(f"`parley up` did not get ready: {log.read_text(errors='replace')[-3000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stops the supervisor with a signal, and kills processes that remain."""
    family = accounting.tree(process.pid)
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        for pid in family:
            _kill(pid)
        process.wait()


def _kill(pid: int) -> None:
    """Kills a process, if it exists."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
