"""Web pages on a real HTTP server, opened by headless Chromium."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from tests.e2e.node_packages import unavailable
from tests.processes import PATIENCE, environment, until

# Without a sandbox, because CI runs as root, and without calls to Google in the background.
OPTIONS = [
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-extensions"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"),
    *("--no-default-browser-check", "--enable-logging=stderr"),
]


class Site:
    """A server of the files of a folder, which receives the results of its pages. `origin` is that of its pages."""

    def __init__(self, folder: Path) -> None:
        self.results: deque[Any] = deque()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self.results, directory=str(folder)))
        self.origin = f"http://127.0.0.1:{self.server.server_port}"


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, results: deque[Any], *arguments: Any, **options: Any) -> None:
        self._results = results
        super().__init__(*arguments, **options)

    def do_POST(self) -> None:
        self._results.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Does not log."""


@contextmanager
def site(folder: Path) -> Iterator[Site]:
    """Serves a folder on a free port."""
    served = Site(folder)
    thread = Thread(target=served.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        served.server.shutdown()
        thread.join()
        served.server.server_close()


class Chromium:
    """A running Chromium. `log` has its messages and those of its pages' consoles."""

    def __init__(self, process: subprocess.Popen[bytes], file: Path) -> None:
        self.process = process
        self._file = file

    @property
    def log(self) -> str:
        """Returns what Chromium has written so far."""
        return self._file.read_text(errors="replace")

    def log_says(self, text: str) -> None:
        """Waits until the log has this text."""
        until(lambda: text in self.log, f"Chromium's log says: {text}")

    def results(self, of: Site) -> Any:
        """Waits for the results of a page of the site."""
        until(lambda: of.results or self.process.poll() is not None, f"results of {of.origin}")
        assert of.results, "Chromium has ended"
        return of.results.popleft()


@contextmanager
def opened(url: str) -> Iterator[Chromium]:
    """Opens a page in a Chromium with files of its own. Shows its log when the test fails; skips without it."""
    command = shutil.which("chromium") or ""
    if not command:
        unavailable("chromium is not installed; gRPC-Web is tested in it")
    with tempfile.TemporaryDirectory(prefix="parley-test-", ignore_cleanup_errors=True) as folder:
        file, known = Path(folder, "log"), environment(TMPDIR=folder)
        line = [command, *OPTIONS, f"--user-data-dir={folder}/profile", url]
        with file.open("wb") as log, subprocess.Popen(line, env=known, stdout=log, stderr=log) as process:
            try:
                yield Chromium(process, file)
            except BaseException:
                sys.stderr.write(f"--- log of Chromium\n{file.read_text(errors='replace')}")
                raise
            finally:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(PATIENCE)
                process.kill()
