"""A scripted issuer of access tokens: a real HTTP server on 127.0.0.1 with real keys, which tests change.

with ScriptedIssuer() as issuer:
    token = issuer.token(sub="ada")
    issuer.rotate("second")
"""

import json
import threading
import time
import warnings
from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from joserfc import jws
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

AnyKey = RSAKey | ECKey | OKPKey | OctKey
METADATA = "/.well-known/openid-configuration"
OAUTH_METADATA = "/.well-known/oauth-authorization-server"
JWKS = "/keys"
AUDIENCE = "parley"


@cache
def rsa_key(number: int = 0) -> RSAKey:
    """Returns one of several RSA keys, made once a process: making one takes a tenth of a second."""
    return RSAKey.generate_key(2048)


def signed(claims: Mapping[str, Any] | bytes, key: AnyKey, header: Mapping[str, Any]) -> str:
    """Returns a token with exactly these claims and this header, signed with the key."""
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    registry = jws.JWSRegistry(algorithms=list(jws.JWSRegistry.algorithms), strict_check_header=False)
    with warnings.catch_warnings(action="ignore", category=SecurityWarning):  # EdDSA
        return jws.serialize_compact(dict(header), payload, key, registry=registry)


@dataclass
class Answer:
    """A response of the server."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class ScriptedIssuer(AbstractContextManager["ScriptedIssuer"]):
    """The server. `keys` are published by key id; `answers` replace its own responses by path.

    Attributes:
        keys: The published keys by id.
        answers: Responses by path, instead of its own.
        requests: The number of requests by path.
        is_down: Whether every request fails with 503.
        cache_control: The `Cache-Control` of the keys.
    """

    def __init__(self, path: str = "") -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.path = path
        self.keys: dict[str, AnyKey] = {"first": rsa_key(0)}
        self.answers: dict[str, Answer] = {}
        self.requests: Counter[str] = Counter()
        self.is_down = False
        self.cache_control = "max-age=3600"

    @property
    def origin(self) -> str:
        """The address of the server."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def url(self) -> str:
        """The issuer's identifier."""
        return self.origin + self.path

    def token(self, /, *, key: AnyKey | None = None, header: Mapping[str, Any] | None = None, **claims: Any) -> str:
        """Returns a valid token of the newest key, with other claims and header where given; None leaves one out."""
        key_id, newest = list(self.keys.items())[-1]
        defaults = {"alg": "RS256", "kid": key_id, "typ": "at+jwt"}
        return signed(_present(self.claims() | claims), key or newest, _present(defaults | dict(header or {})))

    def claims(self) -> dict[str, Any]:
        """Returns the claims of a valid token."""
        now = int(time.time())
        return {
            "iss": self.url,
            "sub": "ada",
            "aud": AUDIENCE,
            "iat": now,
            "exp": now + 300,
            "client_id": "cli",
            "scope": "openid email profile",
        }

    def rotate(self, key_id: str, number: int = 1) -> None:
        """Replaces all keys by a new one."""
        self.keys = {key_id: rsa_key(number)}

    def metadata(self) -> dict[str, Any]:
        """Returns the issuer's metadata."""
        return {"issuer": self.url, "jwks_uri": self.origin + JWKS}

    def key_set(self) -> dict[str, Any]:
        """Returns the JWK Set with the public keys."""
        return {"keys": [key.as_dict(private=False, kid=name) for name, key in self.keys.items()]}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, path: str) -> Answer:
        self.requests[path] += 1
        if self.is_down:
            return Answer(b"down", 503)
        if path in self.answers:
            return self.answers[path]
        own = {self.path + METADATA: self.metadata, JWKS: self.key_set}
        if path not in own:
            return Answer(b"not found", 404)
        return Answer(json.dumps(own[path]()).encode(), headers={"Cache-Control": self.cache_control})

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer = issuer._answer(self.path)
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, *_: Any) -> None:
                """Logs nothing."""

        return Handler


def _present(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
