"""A web server with one file of a model, which breaks connections and answers as told."""

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from parley.cli.shared import download, http_source

MODEL = b"GGUF" + bytes(range(256)) * 40
SHA256 = hashlib.sha256(MODEL).hexdigest()
CUT = 4000


class Files(ThreadingHTTPServer):
    """Serves one file.

    Attributes:
        content: The file.
        etag: Its version; empty for a server that names none.
        cuts: How many more answers end in the middle.
        ranges: The `Range` of each request.
        users: The `Authorization` of each request.
        status: The status of all answers, if it is not that of success.
        location: Where all requests are redirected to; empty for nowhere.
        part: The headers and the body of answers to requests of a part; None for the right ones.
        has_length: Whether answers have `Content-Length`.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.etag, self.cuts, self.status = MODEL, '"one"', 0, 0
        self.ranges: list[str | None] = []
        self.users: list[str | None] = []
        self.location = ""
        self.part: tuple[dict[str, str], bytes] | None = None
        self.has_length = True

    @property
    def url(self) -> str:
        """The address of the file, with a secret."""
        return f"http://127.0.0.1:{self.server_port}/folder/tiny.gguf?token=hush"


class Handler(BaseHTTPRequestHandler):
    """Answers with the file, or the rest of it if it still has the version of the request."""

    server: Files

    def do_GET(self) -> None:
        """Answers a request."""
        files = self.server
        files.ranges.append(self.headers.get("Range"))
        files.users.append(self.headers.get("Authorization"))
        if files.location:
            self.send_response(302)
            self.send_header("Location", files.location)
            self.end_headers()
            return
        if files.part is not None and files.ranges[-1]:
            self._send(206, *files.part)
            return
        if files.status:
            self.send_error(files.status)
            return
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(found[1]) if found and self.headers.get("If-Range") == files.etag else 0
        self.send_response(206 if start else 200)
        if files.has_length:
            self.send_header("Content-Length", str(len(files.content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(files.content) - 1}/{len(files.content)}")
        if files.etag:
            self.send_header("ETag", files.etag)
        self.end_headers()
        if files.cuts:
            files.cuts -= 1
            self.wfile.write(files.content[start : start + CUT])
            self.close_connection = True
        else:
            self.wfile.write(files.content[start:])

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
        """Logs nothing."""


@contextmanager
def serving() -> Iterator[Files]:
    """Runs a server."""
    server = Files()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def fetch(files: Files, folder: Path, sha256: str | None = None) -> download.Fetched:
    """Fetches the file."""
    return download.fetch(http_source.parse(files.url), folder / "tiny.gguf", sha256, lambda *_: None)


def interrupt(files: Files, tmp_path: Path) -> None:
    """Leaves an incomplete file, as Ctrl-C does."""

    def show(done: int, _: int | None) -> None:
        if done >= CUT:
            raise KeyboardInterrupt

    files.cuts = 1
    with pytest.raises(KeyboardInterrupt):
        download.fetch(http_source.parse(files.url), tmp_path / "tiny.gguf", None, show)
    files.cuts = 0
    assert not (tmp_path / "tiny.gguf").exists()
