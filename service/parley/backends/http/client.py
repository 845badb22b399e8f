"""Asks one server over HTTP/1.1, on connections that are kept.

aiohttp's connector makes, checks, pools and proxies the connections, and its C parser reads the answers. Its
ClientSession is left out: it builds every request anew, which costs more than all the rest of a call. What is built
here once is the head of the request; only its length and its body change.
"""

import asyncio
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from time import monotonic
from weakref import WeakKeyDictionary

import aiohttp
from aiohttp.abc import AbstractResolver
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import StreamReader
from multidict import CIMultiDictProxy
from yarl import URL

from parley.backends.http.proxies import proxy_for

FAILURES = (aiohttp.ClientError, HttpProcessingError, OSError)
"""What a call can fail with; a TimeoutError is one of them."""

_KEEP_ALIVE = 60.0  # seconds that a connection may be idle
_MAX_AGE_SECONDS = 300.0  # seconds after which a connection is replaced: the name may stand for other addresses by then
_DNS_SECONDS = 10
_LINGER = 0.25  # seconds that the end of a body may be late for its connection to be kept
_LARGE_BODY = 128 * 1024  # bytes that come at once only where something is unpacked, or faster than it is read
_MAX_HEADER_SIZE = 64 * 1024  # bytes of one; aiohttp's default of 8 KiB is less than some gateways send
_MAX_HEADERS = 256
_STALE_SECONDS = 1.0  # a connection that was closed before shows it at once
_STALE = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)
_NOT_AUTOMATIC = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
_COMPRESSED = "gzip, deflate, zstd"


class RetriedOnFreshConnection(aiohttp.ClientError):
    """A call was sent a second time, as a kept connection had turned out to be closed, and failed again: `error`."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class PoolExhausted(TimeoutError):
    """Every connection that there may be is in use, and none became free in time."""


class Response:
    """An answer whose head has come. Must be released or closed. What comes packed is unpacked as it is read."""

    __slots__ = ("_body", "_connection", "_info", "_reusable", "headers", "status")

    def __init__(  # noqa: PLR0913 - what an answer is
        self,
        status: int,
        headers: CIMultiDictProxy[str],
        body: StreamReader,
        connection: Connection,
        info: "ConnectionInfo",
        *,
        reusable: bool,
    ) -> None:
        self.status = status
        self.headers = headers
        self._body = info.body = body
        self._connection = connection
        self._info = info
        self._reusable = reusable

    @property
    def unsupported_encoding(self) -> str | None:
        """The encoding of a body that cannot be unpacked; it comes as it is."""
        encoding = self.headers.get("Content-Encoding")
        return encoding if encoding and encoding.lower() not in _ENCODINGS else None

    async def read(self) -> bytes:
        """Returns what has come of the body, waiting where nothing has; b"" at its end. Raises FAILURES.

        What came before a failure is returned before it is raised; aiohttp itself would forget it.
        """
        try:
            data = await self._body.readany()
        except FAILURES:
            if remaining := self._body._read_nowait(-1):  # noqa: SLF001 - there is no public way to what is left
                return remaining
            raise
        if len(data) >= _LARGE_BODY:
            await asyncio.sleep(0)  # more may follow without any wait, and timers and other calls want their turn
        return data

    @property
    def at_end(self) -> bool:
        """Whether the whole body has come and was read."""
        return self._body.at_eof()

    async def release(self) -> None:
        """Keeps the connection for the next call if the rest of the body, mostly nothing, comes at once."""
        if not self.at_end:
            await self._read_rest()
        self._info.body = None
        if self._reusable:
            self._connection.release()
        else:
            self._connection.close()

    async def _read_rest(self) -> None:
        with suppress(*FAILURES):
            async with asyncio.timeout(_LINGER):
                while not self.at_end and await self.read():
                    pass

    def time_out(self) -> None:
        """Makes a read that waits raise TimeoutError, and every later one that finds nothing left.

        Nothing more comes then: an upstream that is faster than its reader would never leave nothing.
        """
        self._body.set_exception(TimeoutError())
        self._connection.close()

    def close(self) -> None:
        """Closes the connection, unless it was released."""
        if self._info.body is self._body:
            self._info.body = None
        self._connection.close()


class ConnectionInfo:
    """What is known of a connection: since when it is there, and whose body comes on it."""

    __slots__ = ("body", "since")

    def __init__(self, protocol: ResponseHandler) -> None:
        self.since = monotonic()
        self.body: StreamReader | None = None
        if protocol.closed is not None:
            protocol.closed.add_done_callback(self._on_lost)

    def _on_lost(self, closed: asyncio.Future[None]) -> None:
        """Wakes who waits for more of a body: where its framing makes no sense, aiohttp itself forgets to."""
        reason = None if closed.cancelled() else closed.exception()
        body, self.body = self.body, None
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(aiohttp.ClientPayloadError(f"the body makes no sense, or ends too early: {reason}"))


class Endpoint:
    """One address, to which at most `connections` are open at a time.

    The pool belongs to the event loop of the first call; TLS certificates are checked. A proxy is taken from the
    environment, once, and never for a Unix socket. A connection is not used again once it is `max_age` seconds old,
    and what `resolver` says, by default the system's, holds for `dns_seconds`: so a name may move to other addresses.
    Raises ConfigError for a proxy that cannot be used.
    """

    def __init__(  # noqa: PLR0913 - what connections depend on
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
        self._fresh_since = 0.0  # a connection that was there before is not used again
        self._infos: WeakKeyDictionary[ResponseHandler, ConnectionInfo] = WeakKeyDictionary()

    async def post(self, body: bytes, connect_seconds: float, *, compressed: bool = False) -> Response:
        """Sends the body; returns when the head of the answer has come. Raises FAILURES, PoolExhausted.

        `compressed` asks for an answer that is packed. A kept connection that turns out to be closed is replaced by a
        fresh one, and the request sent again.
        """
        return await self._send(("POST", self._url, _COMPRESSED if compressed else "identity"), body, connect_seconds)

    async def get(self, path: str, connect_seconds: float) -> Response:
        """Asks for what stands at `path`, from the server's root. Returns and raises as `post` does."""
        return await self._send(("GET", self._url.with_path(path, encoded=True), _COMPRESSED), b"", connect_seconds)

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
        full = len(connector._acquired) >= self._connections  # noqa: SLF001 - there is no public way to the number
        try:
            return await connector.connect(self._request, [], _timeout(seconds))
        except TimeoutError:
            if full:
                raise PoolExhausted(f"all {self._connections} `connections` to this backend are in use") from None
            raise

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
        """Returns the request's head up to its length; a proxy of plain HTTP reads the whole address in it."""
        method, url, encodings = request_line
        target = str(url) if self._proxy and url.scheme == "http" else url.raw_path_qs
        length = "Content-Length"
        lines = [f"{name}: {value}" for name, value in self._request.headers.items() if name != length]
        head = [f"{method} {target} HTTP/1.1", *lines, f"Accept-Encoding: {encodings}", f"{length}: "]
        self._heads[request_line] = built = "\r\n".join(head).encode()
        return built


_RequestLine = tuple[str, URL, str]
"""Method, address and the encodings that the answer may have."""

_ENCODINGS = frozenset({"gzip", "deflate", "zstd", "br", "identity"})
"""What aiohttp unpacks; where it lacks the means, it says so itself."""


@lru_cache(maxsize=64)
def _timeout(connect_seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=connect_seconds)
