"""HTTP/1.1 client for one upstream address, with pooled connections.

The request head is built once for each kind of request; only `Content-Length` and the body change between calls.
"""

from collections.abc import Coroutine
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
from parley.backends.http.response import Response
from parley.core.ports import HOPS, AttemptTrace

_MAX_AGE_SECONDS = 300.0  # maximum age of a connection; a new one picks up changed DNS records
_DNS_SECONDS = 10.0
_STALE_SECONDS = 1.0  # a connection that the server had already closed fails within this time
_NEVER = float("inf")

_RequestLine = tuple[str, str, int | None]
"""The method and the target, the value of `Accept-Encoding`, and the number of hops."""


class Endpoint:
    """A connection pool for one address.

    The pool belongs to the event loop of the first call. The proxy comes from the environment at construction; a Unix
    socket never uses one.

    Args:
        url: Target of `post`.
        headers: Sent with every request.
        unix_socket: Connects over this socket instead of TCP.
        connections: Maximum number of open connections.
        max_age: Seconds after which a connection is not reused.
        dns_seconds: Seconds for which a resolved address is cached.
        resolver: Resolves the host name; the system's resolver by default.

    Raises:
        ConfigError: If the environment names an unusable proxy.
    """

    def __init__(  # noqa: PLR0913 - one parameter for each setting of the pool
        self,
        url: URL,
        headers: dict[str, str],
        unix_socket: Path | None = None,
        *,
        connections: int = 1000,
        max_age: float = _MAX_AGE_SECONDS,
        dns_seconds: float = _DNS_SECONDS,
        resolver: Resolver = resolve,
    ) -> None:
        self._url = url
        self._proxy = None if unix_socket is not None else proxy_for(url)
        self._lines = self._common_headers(headers)
        self._dialer = Dialer(url, self._proxy, unix_socket, resolver, dns_seconds)
        self._connections = connections
        self._max_age = max_age
        self._pool: Pool | None = None
        self._heads: dict[_RequestLine, bytes] = {}
        self._post = f"POST {self._target(url)}"

    @property
    def counts(self) -> tuple[int, int, int]:
        """The used connections, the idle ones, and the calls that wait for one."""
        return self._pool.counts if self._pool is not None else (0, 0, 0)

    def post(  # noqa: PLR0913 - what requests differ in
        self,
        body: bytes,
        connect_seconds: float,
        deadline: float = _NEVER,
        *,
        compressed: bool = False,
        hops: int | None = None,
        trace: AttemptTrace | None = None,
    ) -> Coroutine[Any, Any, Response]:
        """Sends a POST request and returns once the response head has arrived.

        If the server had closed a pooled connection, the request is sent once more on a fresh one.

        Args:
            body: The request body.
            connect_seconds: Maximum wait for a connection, including the wait for a free one in the pool.
            deadline: When the response must be complete, as a time of the event loop's clock, unless
                `Response.expire_at` moves it.
            compressed: Whether the response may be compressed.
            hops: The number of Parleys that the call has passed through; None to send none.
            trace: The trace context that is sent; None for none.

        Raises:
            FAILURES: If the exchange fails.
            ConnectionFailed: If no connection can be made.
            PoolExhausted: If no connection became free in time.
            TimeoutError: If the deadline passed.
        """
        line = (self._post, ENCODINGS if compressed else "identity", hops)
        if trace is None:
            return self._send(line, body, connect_seconds, deadline)
        more = "".join(f"{name}: {value}\r\n" for name, value in trace.headers)
        return self._send(line, body, connect_seconds, deadline, more.encode())

    async def get(self, path: str, connect_seconds: float) -> Response:
        """Sends a GET request for the absolute path `path`; otherwise like `post`."""
        target = self._target(self._url.with_path(path, encoded=True))
        return await self._send((f"GET {target}", ENCODINGS, None), b"", connect_seconds, _NEVER)

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
                return Response(connection, pool.give_back)

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
        method_and_target, encodings, hops = line
        lines = [f"{method_and_target} HTTP/1.1", *self._lines]
        lines += [] if hops is None else [f"{HOPS}: {hops}"]
        lines += [f"Accept-Encoding: {encodings}", "Content-Length: "]
        self._heads[line] = built = "\r\n".join(lines).encode()
        return built
