"""The Parley of the drill, with its upstreams, its calls and its Prometheus."""

import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any, Self

from prometheus_client.parser import text_string_to_metric_families

from tests.processes import Parley, launch, reserved_port, run_here, until, wait_ready
from tests.prometheus import Prometheus, scraping
from tests.upstream import Gate, Json, ScriptedUpstream, completion
from tests.webhooks import SECRET, receiving

_CONFIG = """\
backends:
  answers: {{kind: openai, base_url: "{answers}"}}
  faulty: {{kind: openai, base_url: "{faulty}"}}
  slots: {{kind: openai, base_url: "{slots}"}}
  narrow: {{kind: openai, base_url: "{narrow}", connections: 1}}
  keyed: {{kind: openai, base_url: "{faulty}", api_keys: [first, second]}}
guards:
  down: {{address: "127.0.0.1:1", on_failure: open}}
models:
  - {{id: answers, targets: [{{backend: answers}}]}}
  - {{id: faulty, targets: [{{backend: faulty}}]}}
  - {{id: fallback, targets: [{{backend: faulty}}], fallbacks: [answers]}}
  - {{id: slots, targets: [{{backend: slots, max_concurrent: 1, max_queued: 8}}]}}
  - {{id: narrow, targets: [{{backend: narrow}}]}}
  - {{id: keyed, targets: [{{backend: keyed}}]}}
  - {{id: guarded, targets: [{{backend: answers}}], guards: [down]}}
budgets: {{warn_at: [1.0], webhook: {{url: "{webhook}", secret: "{secret}"}}}}
default_model: answers
"""
_LOG_LINES = 40  # that a failed drill prints
_PAUSE = 0.2  # seconds between two calls of a caller
_PEER = struct.Struct("3i")  # the process, the user and the group of SO_PEERCRED


class Site:
    """A Parley of two workers on SQLite, which is called all the time, and a Prometheus that evaluates the rules.

    Attributes:
        folder: Has the files.
        upstreams: The scripted upstreams, by backend.
        webhook: The receiver of alerts of budgets.
        parley: The running Parley.
        log_reader: The program that reads its output and its log, and writes both to files.
        prometheus: The running Prometheus.
    """

    def __init__(self, folder: Path, rules: str) -> None:
        self.folder = folder
        self.key = ""
        self.upstreams = {name: ScriptedUpstream() for name in ("answers", "faulty", "slots", "narrow")}
        self._rules = rules
        self._metrics = f"127.0.0.1:{reserved_port()}"
        self._running = ExitStack()

    def __enter__(self) -> Self:
        for upstream in self.upstreams.values():
            self._running.enter_context(upstream)
        self.webhook = self._running.enter_context(receiving())
        urls = {name: upstream.url for name, upstream in self.upstreams.items()}
        urls |= {"webhook": self.webhook.url, "secret": SECRET}
        (self.folder / "parley.yaml").write_text(_CONFIG.format(**urls))
        self.start()
        self._running.callback(self.stop)
        self.prometheus: Prometheus = self._running.enter_context(
            scraping(f"http://{self._metrics}", self.folder, self._rules)
        )
        self._running.enter_context(self.callers("answers"))
        until(lambda: self.prometheus.query("count_over_time(up[1m]) > 3"), "scrapes before the first fault")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            sys.stderr.write("".join(self.parley.log.splitlines(keepends=True)[-_LOG_LINES:]))
        self._running.close()

    def start(self) -> None:
        """Starts the Parley, with its metrics at the same address as before."""
        options = ("--config", str(self.folder / "parley.yaml"), "--metrics", self._metrics)
        # Stopped workers stay, and Envoy's heap is small, so that faults can be caused.
        more = {"PARLEY_WORKERS": "2", "PARLEY_HANG_TIMEOUT": "0", "PARLEY_MAX_HEAP": "160MiB"}
        reading, writing = os.pipe()
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
        self.parley: Parley = launch(*options, folder=self.folder, pipe=writing, **more)
        with (self.folder / "log").open("wb") as log:
            self.log_reader = subprocess.Popen(["tee", str(self.folder / "output")], stdin=reading, stdout=log)
        os.close(reading)
        os.close(writing)
        wait_ready(self.parley)
        self.key = self.key or self.parley.key

    def stop(self) -> None:
        """Stops the Parley."""
        self.parley.end()
        self.log_reader.wait()

    def call(self, model: str, key: str | None = None, **fields: Any) -> int:
        """Makes a call; returns the HTTP status, or 0 if there was no answer."""
        body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], **fields}
        try:
            with self.parley.connection() as connection:
                headers = self.parley.headers(key or self.key)
                connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
                response = connection.getresponse()
                response.read()
                return int(response.status)
        except (OSError, HTTPException):
            return 0

    @contextmanager
    def callers(self, model: str, count: int = 1, key: str | None = None, **fields: Any) -> Iterator[None]:
        """Makes calls all the time, `count` at once."""
        ended = threading.Event()

        def repeat() -> None:
            while not ended.wait(_PAUSE):
                self.call(model, key, **fields)

        with ThreadPoolExecutor(count) as pool:
            for _ in range(count):
                pool.submit(repeat)
            try:
                yield
            finally:
                ended.set()

    @contextmanager
    def stalled(self, name: str) -> Iterator[None]:
        """Has an upstream answer nothing."""
        upstream, gate = self.upstreams[name], Gate()
        before, upstream.default = upstream.default, Json(completion(), wait=gate)
        try:
            yield
        finally:
            upstream.default = before
            gate.set()

    def new_key(self, name: str, *limits: str) -> str:
        """Creates a key of an account of that name, with limits."""
        chosen = [word for limit in limits for word in ("--limit", limit)]
        made = run_here("keys", "create", "--name", name, "--account", name, "--json", *chosen,
                        "--state-dir", str(self.folder / "state"))  # fmt: skip
        return str(json.loads(made.stdout)["key"])

    def worker_calling(self, backend: str) -> int | None:
        """Returns the process id of the worker that reports a connection to a backend in use."""
        wanted = {"backend": backend, "state": "used"}
        for path in (self.folder / "state" / "run").glob("worker-*-metrics.sock"):
            with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(path))
                peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
                connection.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
                text = b"".join(iter(lambda: connection.recv(65536), b"")).partition(b"\r\n\r\n")[2].decode()
                samples = (one for family in text_string_to_metric_families(text) for one in family.samples)
                if any(
                    one.value and one.name == "parley_upstream_connections" and one.labels == wanted for one in samples
                ):
                    return int(_PEER.unpack(peer)[0])
        return None

    def replace_workers(self) -> None:
        """Kills the workers, and waits until Prometheus knows the new processes."""
        before = self.starts()
        for pid in self.parley.workers():
            os.kill(pid, signal.SIGKILL)
        until(lambda: len(self.starts()) == 2 and not self.starts() & before, "metrics of the new workers")

    def starts(self) -> set[tuple[str, str]]:
        """Returns the numbers of the workers with their starts, by Prometheus."""
        found = self.prometheus.query('process_start_time_seconds{worker=~"[0-9]+"}')
        return {(one["metric"]["worker"], one["value"][1]) for one in found}
