"""A receiver of webhooks: a real HTTP server that checks signatures with an independent implementation."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from standardwebhooks.webhooks import Webhook as Verifier

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYqr"
PATH = "/hooks/token-in-the-path"


@dataclass
class Receiver:
    """A receiver of webhooks. It answers with each of `statuses`, and then with 204.

    `received` has the path, the verified payload and the id of each request.
    """

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    received: list[tuple[str, Any, str]] = field(default_factory=list)


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Runs a receiver on a port of this machine."""
    state = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            state.received.append((self.path, Verifier(SECRET).verify(body, headers), headers["webhook-id"]))
            status = state.statuses.pop(0) if state.statuses else 204
            self.send_response(status)
            self.send_header("location", "/elsewhere")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        state.url = f"http://127.0.0.1:{server.server_port}{PATH}"
        yield state
        server.shutdown()
