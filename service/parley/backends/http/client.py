"""HTTP/1.1 client for one upstream address, with pooled connections.

The request head is built once for each kind of request; only `Content-Length` and the body change between calls.
"""

from collections.abc import Coroutine, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

from yarl import URL

from parley.backends.http.connection import Connection
from parley.backends.http.decoding import ENCODINGS
from parley.backends.http.dialer import Dialer, Resolver, basic, proxy_authorization, resolve
from parley.backends.http.errors import FAILURES, Disconnected, RetriedOnFreshConnection
from parley.backends.http.pool import Pool
from parley.backends.http.proxies import proxy_for
from parley.backends.http.request_heads import RequestHeads
from parley.backends.http.response import Response
from parley.backends.http.tls import context_for
from parley.config import UpstreamRequests
from parley.core.ports import HOPS, UpstreamCall

_MAX_AGE_SECONDS = 300.0  # maximum age of a connection; a new one picks up changed DNS records
_DNS_SECONDS = 10.0
_STALE_SECONDS = 1.0  # a connection that the server had already closed fails within this time
_NEVER = float("inf")

_MAX_HEADS = 4096  # the path and the key may differ from call to call

_RequestLine = tuple[str, str, int | None, str]
"""The method and the target, the value of `Accept-Encoding`, the number of hops, and the line of the key."""


class Endpoint:
    """A connection pool for one address.

    The pool belongs to the event loop of the first call. The proxy comes from the settings, or from the environment at
    construction; a Unix socket never uses one.

    Args:
        heads: Address and headers of the requests.
        settings: Proxy and certificates.
        unix_socket: Connects over this socket instead of TCP.
        connections: Maximum number of open connections.
        max_age: Seconds after which a connection is not reused.
        dns_seconds: Seconds for which a resolved address is cached.
        resolver: Resolves the host name; the system's resolver by default.

    Raises:
        ConfigError: If the environment names an unusable proxy, or a file of certificates cannot be used.
    """

    def __init__(  # noqa: PLR0913 - one parameter for each setting of the pool
        self,
        heads: RequestHeads,
        settings: UpstreamRequests,
        unix_socket: Path | None = None,
        *,
        connections: int = 1000,
        max_age: float = _MAX_AGE_SECONDS,
        dns_seconds: float = _DNS_SECONDS,
        resolver: Resolver = resolve,
    ) -> None:
        self._request_heads = heads
        self._url = url = heads.url
        self._proxy = None if unix_socket is not None else proxy_for(url, settings.proxy)
        self._lines = self._common_headers(heads.headers)
        self._dialer = Dialer(url, self._proxy, unix_socket, resolver, dns_seconds, tls=context_for(settings))
        self._connections = connections
        self._max_age = max_age
        self._pool: Pool | None = None
        self._heads: dict[_RequestLine, bytes] = {}
        self._post = f"POST {self._target(url)}"
        self._varies = heads.varies

    @property
    def counts(self) -> tuple[int, int, int]:
        """The used connections, the idle ones, and the calls that wait for one."""
        return self._pool.counts if self._pool is not None else (0, 0, 0)

    def post(
        self, body: bytes, call: UpstreamCall, deadline: float = _NEVER, *, compressed: bool = False
    ) -> Coroutine[Any, Any, Response]:
        """Sends a POST request and returns once the response head has arrived.

        If the server had closed a pooled connection, the request is sent once more on a fresh one.

        Args:
            body: The request body.
            call: Has the time limit for a connection (including the wait for a free one in the pool), the number of
                Parleys that it has passed through, the trace context, the model and the caller's headers.
            deadline: When the response must be complete, as a time of the event loop's clock, unless
                `Connection.wait` moves it.
            compressed: Whether the response may be compressed.

        Raises:
            FAILURES: If the exchange fails.
            ConnectionFailed: If no connection can be made.
            PoolExhausted: If no connection became free in time.
            TimeoutError: If the deadline passed.
        """
        target, key = self._post, ""
        if self._varies:
            url, key = self._request_heads.of(call)
            target = f"POST {self._target(url)}"
        line = (target, ENCODINGS if compressed else "identity", call.hops, key)
        if call.trace is None and not call.forwarded:
            return self._send(line, body, call.timeouts.connect, deadline)
        more = "".join(f"{name}: {value}\r\n" for name, value in call.trace.headers) if call.trace else ""
        more += self._request_heads.forwarded(call.forwarded)
        return self._send(line, body, call.timeouts.connect, deadline, more.encode())

    async def get(self, path: str, connect_seconds: float, key: str) -> Response:
        """Sends a GET request for the absolute path `path`, with the query of calls; otherwise like `post`.

        Args:
            path: The path.
            connect_seconds: Time to connect.
            key: The key of the backend; empty for none.
        """
        url, key_line = self._request_heads.beside(path, key)
        line = (f"GET {self._target(url)}", ENCODINGS, None, key_line)
        return await self._send(line, b"", connect_seconds, _NEVER)

    @property
    def keys(self) -> Sequence[str]:
        """The keys for `get`, the one to use first at the beginning; `""` for a backend without a key."""
        return self._request_heads.keys_beside_calls()

    async def close(self) -> None:
        """Closes every connection."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    async def _send(
        self, line: _RequestLine, body: bytes, connect_seconds: float, deadline: float, more_headers: bytes = b""
    ) -> Response:
        pool = self._pool or self._open()
        head = self._heads.get(line) or self._make_head(line)
        request = b"%s%d\r\n%s\r\n%s" % (head, len(body), more_headers, body)
        is_retry = False
        while True:
            connection = pool.take_idle()
            is_used = True
            if connection is None:
                connection, is_used = await pool.open(connect_seconds, deadline)
            sent = monotonic()
            try:
                connection.send(request, deadline)
                while not connection.status:  # as `wait_head`, without a coroutine for each call
                    if connection.error is not None:
                        raise connection.error  # noqa: TRY301 - a function would be a coroutine again
                    await connection.wait()
            except BaseException as error:
                connection.close()
                pool.give_back(connection)
                if is_retry and isinstance(error, FAILURES) and not isinstance(error, TimeoutError):
                    raise RetriedOnFreshConnection(error) from error
                if not is_used or not isinstance(error, Disconnected) or monotonic() - sent > _STALE_SECONDS:
                    raise
                is_retry = True
                pool.distrust()
            else:
                return Response(connection, pool)

    def _open(self) -> Pool:
        self._pool = Pool(self._connect, self._connections, self._max_age)
        return self._pool

    async def _connect(self) -> Connection:
        return await self._dialer.connect()

    def _target(self, url: URL) -> str:
        """Returns the request target. An HTTP proxy requires the absolute URL (RFC 9112, 3.2.2)."""
        return str(url.with_user(None)) if self._proxy and url.scheme == "http" else url.raw_path_qs

    def _common_headers(self, headers: dict[str, str]) -> list[str]:
        lines = [f"Host: {self._url.host_port_subcomponent}", *(f"{name}: {value}" for name, value in headers.items())]
        if self._url.user and "Authorization" not in headers:
            lines.append(f"Authorization: {basic(self._url)}")
        if self._proxy and self._url.scheme == "http":
            lines += proxy_authorization(self._proxy)
        return lines

    def _make_head(self, line: _RequestLine) -> bytes:
        """Builds and caches the request head up to the value of `Content-Length`."""
        method_and_target, encodings, hops, key = line
        lines = [f"{method_and_target} HTTP/1.1", *self._lines]
        lines += [key] if key else []
        lines += [] if hops is None else [f"{HOPS}: {hops}"]
        lines += [f"Accept-Encoding: {encodings}", "Content-Length: "]
        if len(self._heads) >= _MAX_HEADS:
            self._heads.clear()
        self._heads[line] = built = "\r\n".join(lines).encode()
        return built
