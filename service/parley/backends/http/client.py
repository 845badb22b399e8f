"""HTTP/1.1 client for one upstream address, with pooled connections.

aiohttp's connector opens, pools and proxies the connections, and its C parser reads the responses. ClientSession is
not used: it rebuilds every request, which costs more than the rest of a call. This module builds the request head once;
only `Content-Length` and the body change between calls.
"""

import asyncio
from functools import lru_cache
from pathlib import Path
from time import monotonic
from weakref import WeakKeyDictionary

import aiohttp
from aiohttp.abc import AbstractResolver
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from yarl import URL

from parley.backends.http.proxies import proxy_for
from parley.backends.http.response import FAILURES, ConnectionInfo, Response
from parley.core.ports import HOPS

_KEEP_ALIVE = 60.0  # seconds that a connection may be idle
_MAX_AGE_SECONDS = 300.0  # maximum age of a connection; a new one picks up changed DNS records
_DNS_SECONDS = 10
_MAX_HEADER_SIZE = 64 * 1024  # bytes of one header; some gateways exceed aiohttp's default of 8 KiB
_MAX_HEADERS = 256
_STALE_SECONDS = 1.0  # a connection that the server had already closed fails within this time
_STALE = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)
_NOT_AUTOMATIC = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
_COMPRESSED = "gzip, deflate, zstd"


class RetriedOnFreshConnection(aiohttp.ClientError):
    """The retry on a fresh connection failed too; the first attempt used a pooled connection that was closed.

    Attributes:
        error: The failure of the second attempt.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class ConnectionFailed(aiohttp.ClientError):
    """No connection was made, so the server has not received the request.

    Attributes:
        error: The failure.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class PoolExhausted(TimeoutError):
    """All connections of the pool are in use, and none was released in time."""


class Endpoint:
    """A connection pool for one address.

    The pool belongs to the event loop of the first call. TLS certificates are verified. The proxy comes from the
    environment at construction; a Unix socket never uses one.

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
        dns_seconds: int = _DNS_SECONDS,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._url = url
        self._headers = headers
        self._unix_socket = unix_socket
        self._connections = connections
        self._max_age = max_age
        self._dns_seconds = dns_seconds
        self._resolver = resolver
        self._proxy = None if unix_socket is not None else proxy_for(url)
        self._connector: aiohttp.BaseConnector | None = None
        self._fresh_since = 0.0  # monotonic time; connections opened before it are not reused
        self._infos: WeakKeyDictionary[ResponseHandler, ConnectionInfo] = WeakKeyDictionary()

    async def post(
        self, body: bytes, connect_seconds: float, *, compressed: bool = False, hops: int | None = None
    ) -> Response:
        """Sends a POST request and returns once the response head has arrived.

        If the server had closed a pooled connection, the request is sent once more on a fresh one.

        Args:
            body: The request body.
            connect_seconds: Maximum wait for a connection, including the wait for a free one in the pool.
            compressed: Whether the response may be compressed.
            hops: The number of Parleys that the call has passed through; None to send none.

        Raises:
            FAILURES: If the exchange fails.
            ConnectionFailed: If no connection can be made.
            PoolExhausted: If no connection became free in time.
        """
        encodings = _COMPRESSED if compressed else "identity"
        return await self._send(("POST", self._url, encodings, hops), body, connect_seconds)

    async def get(self, path: str, connect_seconds: float) -> Response:
        """Sends a GET request for the absolute path `path`; otherwise like `post`."""
        return await self._send(
            ("GET", self._url.with_path(path, encoded=True), _COMPRESSED, None), b"", connect_seconds
        )

    async def close(self) -> None:
        """Closes every connection."""
        if self._connector is not None:
            connector, self._connector = self._connector, None
            await connector.close()

    def _open(self) -> aiohttp.BaseConnector:
        if self._unix_socket is not None:
            self._connector = aiohttp.UnixConnector(
                str(self._unix_socket), limit=self._connections, keepalive_timeout=_KEEP_ALIVE
            )
        else:
            self._connector = aiohttp.TCPConnector(
                limit=self._connections,
                keepalive_timeout=_KEEP_ALIVE,
                ttl_dns_cache=self._dns_seconds,
                resolver=self._resolver,
            )
        self._request = aiohttp.ClientRequest(
            "POST",
            self._url,
            headers=self._headers,
            skip_auto_headers=_NOT_AUTOMATIC,
            proxy=self._proxy,
            loop=asyncio.get_running_loop(),
        )
        self._heads: dict[_RequestLine, bytes] = {}
        return self._connector

    async def _send(self, request_line: "_RequestLine", body: bytes, connect_seconds: float) -> Response:
        connector = self._connector or self._open()
        is_retry = False
        while True:
            connection = await self._connect(connector, connect_seconds)
            protocol = connection.protocol
            info = None if protocol is None else self._infos.get(protocol)
            if info is not None and info.since <= self._fresh_since:
                connection.close()
                continue
            sent = monotonic()
            try:
                return await self._round_trip(connection, request_line, body)
            except BaseException as error:
                connection.close()
                if is_retry and isinstance(error, FAILURES) and not isinstance(error, TimeoutError):
                    raise RetriedOnFreshConnection(error) from error
                if info is None or not isinstance(error, _STALE) or monotonic() - sent > _STALE_SECONDS:
                    raise
                is_retry, self._fresh_since = True, monotonic()

    async def _connect(self, connector: aiohttp.BaseConnector, seconds: float) -> Connection:
        full = len(connector._acquired) >= self._connections  # noqa: SLF001 - aiohttp has no public count
        try:
            return await connector.connect(self._request, [], _timeout(seconds))
        except FAILURES as error:
            if full and isinstance(error, TimeoutError):
                raise PoolExhausted(f"all {self._connections} `connections` to this backend are in use") from None
            raise ConnectionFailed(error) from error

    async def _round_trip(self, connection: Connection, request_line: "_RequestLine", body: bytes) -> Response:
        protocol, transport = connection.protocol, connection.transport
        if protocol is None or transport is None:
            raise aiohttp.ServerDisconnectedError
        info = self._infos.get(protocol)
        if info is None:
            info = self._infos[protocol] = ConnectionInfo(protocol)
        protocol.set_response_params(
            read_until_eof=True,
            max_line_size=_MAX_HEADER_SIZE,
            max_field_size=_MAX_HEADER_SIZE,
            max_headers=_MAX_HEADERS,
        )
        head = self._heads.get(request_line) or self._make_head(request_line)
        transport.write(b"%s%d\r\n\r\n%s" % (head, len(body), body))
        status = 100
        while 100 <= status < 200:  # noqa: PLR2004 - informational
            message, payload = await protocol.read()
            status = message.code
        reusable = monotonic() - info.since < self._max_age
        return Response(status, message.headers, payload, connection, info, reusable=reusable)

    def _make_head(self, request_line: "_RequestLine") -> bytes:
        """Builds and caches the request head up to the value of `Content-Length`.

        An HTTP proxy requires the absolute URL in the request line (RFC 9112, 3.2.2).
        """
        method, url, encodings, hops = request_line
        target = str(url) if self._proxy and url.scheme == "http" else url.raw_path_qs
        length = "Content-Length"
        lines = [f"{name}: {value}" for name, value in self._request.headers.items() if name != length]
        lines += [] if hops is None else [f"{HOPS}: {hops}"]
        head = [f"{method} {target} HTTP/1.1", *lines, f"Accept-Encoding: {encodings}", f"{length}: "]
        self._heads[request_line] = built = "\r\n".join(head).encode()
        return built


_RequestLine = tuple[str, URL, str, int | None]
"""Method, URL, the value of `Accept-Encoding`, and the number of hops."""


@lru_cache(maxsize=64)
def _timeout(connect_seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=connect_seconds)
