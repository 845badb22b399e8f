"""Runs edge/containers/compose.yaml and calls it: `python -m tests.containers.drill [--stand-ins]`.

Without `--stand-ins`, Docker pulls the images of PostgreSQL, Prometheus and Grafana; `make images` has made the others.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.containers import checks, sandbox
from tests.processes import until

_HERE = Path(__file__).parent
_CHECK = """
test "$(id -u)" = 10001 && echo "user $(id -u)"
for folder in / /opt /var/lib /etc; do touch $folder/x 2>/dev/null && exit 1; done; echo "root file system read-only"
for tool in cc gcc g++ c++ clang tcc ld as make cmake rustc cargo go pip pip3 uv; do command -v $tool && exit 1; done
test -z "$(find / -xdev -name 'cc1*' -o -xdev -name 'libgcc.a' 2>/dev/null)" && echo "no compiler, no installer"
test -z "$(find / -xdev -perm /6000 -type f 2>/dev/null)" && echo "no file that gives rights"
"""
_IMAGES = ("parley-worker", "parley-edge", "parley")


class Drill:
    """The composition and its API key."""

    def __init__(self, files: list[Path], secrets: Path) -> None:
        self._files = [part for file in files for part in ("--file", str(file))]
        self._secrets = secrets
        self._begun = time.monotonic()
        self.key = ""

    def note(self, text: str) -> None:
        """Prints one line of the transcript."""
        sys.stdout.write(f"{time.monotonic() - self._begun:6.1f} s  {text}\n")
        sys.stdout.flush()

    def compose(self, *arguments: str) -> str:
        """Runs Docker Compose; returns its output. Raises RuntimeError if it fails."""
        program = checks.installed("docker-compose") or "docker-compose"
        variables = {
            "PARLEY_IMAGE": "parley-worker",
            "PARLEY_TARGET": "worker",
            "DRILL_CONFIG": str(_HERE / "parley.yaml"),
            "DRILL_SECRETS": str(self._secrets),
        }
        done = subprocess.run(
            [program, *self._files, *arguments],
            env={**os.environ, **variables}, check=False, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"docker-compose {' '.join(arguments)}: {done.stderr[-2000:]}")
        return done.stdout

    def up(self, *services: str) -> None:
        """Starts services and all that they depend on; returns when these are healthy."""
        self.compose("up", "--detach", "--no-build", "--no-recreate", *services)

    def request(self, method: str, path: str, body: Any = None, port: int = 8080) -> tuple[int, Any]:
        """Sends one request; returns its status, 0 without an answer, and its JSON or text."""
        connection = HTTPConnection("127.0.0.1", port, timeout=120)
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        try:
            connection.request(method, path, json.dumps(body) if body else None, headers)
            response = connection.getresponse()
            status, text = response.status, response.read().decode()
        except (OSError, HTTPException):
            return 0, ""
        finally:
            connection.close()
        return status, json.loads(text) if text.startswith("{") else text

    def chat(self, question: str, **fields: Any) -> tuple[int, Any]:
        """Makes a chat completion."""
        messages = [{"role": "user", "content": question}]
        return self.request("POST", "/v1/chat/completions", {"model": "smollm2", "messages": messages, **fields})

    def series(self, query: str) -> dict[str, float]:
        """Returns the values of a query of Prometheus, by instance."""
        status, answer = self.request("GET", f"/api/v1/query?query={quote(query)}", port=9090)
        found = answer["data"]["result"] if status == 200 else []
        return {one["metric"].get("instance", ""): float(one["value"][1]) for one in found}


def images(drill: Drill) -> None:
    """Checks what is inside each image, in a container with a read-only root and without rights."""
    engine = "podman" if "podman" in os.environ.get("DOCKER_HOST", "") else "docker"
    confined = ["--rm", "--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges", "--tmpfs", "/tmp"]
    for image in _IMAGES:
        command = [engine, "run", *confined, "--network", "none", "--entrypoint", "sh", image, "-c", _CHECK]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{image}: {done.stdout}{done.stderr}")
        drill.note(f"image {image}: {', '.join(done.stdout.splitlines())}")


def start(drill: Drill, services: list[str], secrets: Path) -> None:
    """Starts the vendor, gives its first key to the workers as a secret, and starts the rest."""
    (secrets / "vendor-key").write_text("none\n")
    drill.up("vendor")
    until_healthy(drill, "vendor")
    (secrets / "vendor-key").write_text(drill.compose("exec", "-T", "vendor", "cat", "/var/lib/parley/first-key"))
    drill.note("the image parley serves as the vendor of the workers")
    drill.up(*services)
    until_healthy(drill, "edge")
    listed = drill.compose("ps", "--all", "--format", "{{.Service}} {{.State}} {{.Health}}")
    drill.note(f"up: {', '.join(sorted(' '.join(line.split()) for line in listed.splitlines()))}")
    made = drill.compose(
        "exec", "-T", "--index", "1", "worker", "parley", "keys", "create", "--name", "drill", "--json"
    )
    drill.key = json.loads(made)["key"]


def until_healthy(drill: Drill, service: str) -> None:
    """Waits until all containers of a service are healthy."""

    def healthy() -> bool:
        listed = drill.compose("ps", "--format", "{{.Health}}", service).split()
        return bool(listed) and set(listed) == {"healthy"}

    until(healthy, f"{service} is healthy")


def both_answer(drill: Drill) -> str:
    """Calls until both workers have answered, as Prometheus reports them. Returns the session of the first call."""
    status, answer = drill.chat("What is the capital of France?")
    assert status == 200, answer
    drill.note(f"REST through Envoy: {answer['choices'][0]['message']['content']!r}")
    for number in range(7):
        assert 200 == drill.chat(f"What is {number} plus one?", store=False, max_tokens=8)[0]
    calls = 'parley_calls_total{model="smollm2"}'
    until(lambda: len(drill.series(f"sum by (instance) ({calls}) > 0")) == 2, "Prometheus has calls of both workers")
    drill.note(f"Prometheus: {len(drill.series('up == 1'))} targets up, calls by worker {drill.series(calls)}")
    return str(answer["chatSessionId"])


def replica_stops(drill: Drill, session: str) -> None:
    """Stops one worker between the turns of a session, and calls meanwhile."""
    statuses: list[int] = []
    ended = threading.Event()

    def call() -> None:
        while not ended.is_set():
            statuses.append(drill.chat("Hi", store=False, max_tokens=8)[0])

    caller = threading.Thread(target=call)
    caller.start()
    names = drill.compose("ps", "--format", "{{.Name}}", "worker").split()
    drill.compose("up", "--detach", "--no-build", "--no-deps", "--no-recreate", "--scale", "worker=1", "worker")
    status, answer = drill.chat("And of Germany?", chatSessionId=session)
    ended.set()
    caller.join()
    left = drill.compose("ps", "--format", "{{.Name}}", "worker").split()
    assert (2, 1, 200) == (len(names), len(left), status), (names, left, answer)
    drill.note(f"one worker of {len(names)} stopped: {len(statuses)} calls meanwhile, statuses {sorted(set(statuses))}")
    drill.note(f"the session goes on at {left[0]}: {answer['choices'][0]['message']['content']!r}")
    drill.up("worker")


def database_restarts(drill: Drill, session: str, restart: Callable[[], object], how: str) -> None:
    """Restarts PostgreSQL and reads the turns of the session."""
    restart()
    shown = ["exec", "-T", "--index", "1", "worker", "parley", "sessions", "show", session]

    def has_both_turns() -> bool:
        with contextlib.suppress(RuntimeError):  # PostgreSQL starts
            return all(f"capital of {country}" in drill.compose(*shown) for country in ("France is", "Germany is"))
        return False

    until(has_both_turns, "the session has its turns")
    until(lambda: drill.request("GET", "/readyz")[0] == 200, "turns can be stored")
    drill.note(f"{how}: the session has both of its turns")


def edge_drains(drill: Drill) -> None:
    """Stops Envoy in the middle of a stream, which finishes first."""
    found: list[tuple[int, Any]] = []
    question = "Write a long story about a river."
    caller = threading.Thread(target=lambda: found.append(drill.chat(question, stream=True, store=False)))
    caller.start()
    until(lambda: sum(drill.series("sum(parley_calls_in_flight)").values()) > 0 or found, "the stream runs")
    drill.compose("stop", "edge")
    caller.join()
    ((status, text),) = found
    assert (200, True) == (status, text.rstrip().endswith("data: [DONE]"))
    drill.note("Envoy stopped in the middle of a stream: the stream finished before")
    drill.up("edge")


def main() -> int:
    """Runs the drill. Returns the exit code."""
    stand_ins = "--stand-ins" in sys.argv[1:]
    if stand_ins:
        sandbox.enter()
    files = [checks.COMPOSE, _HERE / "drill.yaml", *([_HERE / "stand_ins" / "compose.yaml"] if stand_ins else ())]
    services = ["edge", "prometheus", *([] if stand_ins else ["grafana"])]
    subprocess.run(["make", "--no-print-directory", "-s", "secrets"], cwd=checks.ROOT, check=True, capture_output=True)
    secrets = Path(tempfile.mkdtemp(prefix="parley-drill-"))
    drill = Drill(files, secrets)
    try:
        images(drill)
        start(drill, services, secrets)
        session = both_answer(drill)
        replica_stops(drill, session)
        database_restarts(drill, session, lambda: drill.compose("restart", "postgres"), "PostgreSQL restarted")
        edge_drains(drill)

        def again() -> None:
            drill.compose("down")
            drill.up("vendor")
            until_healthy(drill, "vendor")
            drill.up(*services)
            until_healthy(drill, "edge")

        database_restarts(drill, session, again, "all containers removed and started again")
    except BaseException:
        sys.stderr.write(drill.compose("logs", "--tail", "20"))
        sys.stderr.write(f"{drill.request('GET', '/api/v1/targets', port=9090)}\n")
        raise
    finally:
        drill.compose("down", "--volumes")
        shutil.rmtree(secrets)
    drill.note("passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
