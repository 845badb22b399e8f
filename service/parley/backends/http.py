"""POSTs to one address over HTTP/1.1, on connections that are kept.

aiohttp's connector makes, checks, pools and proxies the connections, and its C parser reads the answers. Its
ClientSession is left out: it builds every request anew, which costs more than all the rest of a call. What is built
here once is the head of the request; only its length and its body change.
"""

import asyncio
from functools import lru_cache
from pathlib import Path
from urllib.request import getproxies, proxy_bypass
from weakref import WeakSet

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import StreamReader
from multidict import CIMultiDictProxy
from yarl import URL

FAILURES = (aiohttp.ClientError, HttpProcessingError, OSError)
"""What a call can fail with; a TimeoutError is one of them."""

_KEEP_ALIVE = 60.0
_LINGER = 0.25  # seconds that the end of a body may be late for its connection to be kept
_STALE = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)
_NOT_AUTOMATIC = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


class Answer:
    """An answer whose head has come. Must be released or closed."""

    __slots__ = ("_body", "_connection", "headers", "status")

    def __init__(self, status: int, headers: CIMultiDictProxy[str], body: StreamReader, connection: Connection) -> None:
        self.status = status
        self.headers = headers
        self._body = body
        self._connection = connection

    async def read(self) -> bytes:
        """Returns what has come of the body, waiting where nothing has; b"" at its end. Raises FAILURES.

        What came before a failure is returned before it is raised; aiohttp itself would forget it.
        """
        try:
            return await self._body.readany()
        except FAILURES:
            if left := self._body._read_nowait(-1):  # noqa: SLF001 - there is no public way to what is left
                return left
            raise

    async def release(self) -> None:
        """Keeps the connection for the next call if the rest of the body, mostly nothing, comes at once."""
        try:
            async with asyncio.timeout(_LINGER):
                while not self._body.at_eof() and await self._body.readany():
                    pass
        except FAILURES:
            pass
        self._connection.release()

    def time_out(self) -> None:
        """Makes a read that waits, and every later one, raise TimeoutError."""
        self._body.set_exception(TimeoutError())

    def close(self) -> None:
        """Closes the connection, unless it was released."""
        self._connection.close()


class Endpoint:
    """One address. The pool belongs to the event loop of the first call; TLS certificates are checked.

    A proxy is taken from the environment, once, and never for a Unix socket.
    """

    def __init__(self, url: URL, headers: dict[str, str], unix_socket: Path | None = None) -> None:
        self._url = url
        self._headers = headers
        self._unix_socket = unix_socket
        self._proxy = None if unix_socket is not None else _proxy(url)
        self._connector: aiohttp.BaseConnector | None = None
        self._used: WeakSet[ResponseHandler] = WeakSet()

    async def post(self, body: bytes, connect_seconds: float) -> Answer:
        """Sends the body; returns when the head of the answer has come. Raises FAILURES.

        A kept connection that turns out to be closed is replaced, and the request sent again.
        """
        connector = self._connector or self._open()
        while True:
            connection = await connector.connect(self._request, [], _timeout(connect_seconds))
            protocol = connection.protocol
            kept = protocol in self._used
            try:
                return await self._exchange(connection, body)
            except BaseException as error:
                connection.close()
                if not (kept and isinstance(error, _STALE)):
                    raise

    async def close(self) -> None:
        """Closes every connection."""
        if self._connector is not None:
            connector, self._connector = self._connector, None
            await connector.close()

    def _open(self) -> aiohttp.BaseConnector:
        if self._unix_socket is not None:
            self._connector = aiohttp.UnixConnector(str(self._unix_socket), limit=0, keepalive_timeout=_KEEP_ALIVE)
        else:
            self._connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE)
        self._request = aiohttp.ClientRequest(
            "POST",
            self._url,
            headers=self._headers,
            skip_auto_headers=_NOT_AUTOMATIC,
            proxy=self._proxy,
            loop=asyncio.get_running_loop(),
        )
        self._head: bytes | None = None
        return self._connector

    async def _exchange(self, connection: Connection, body: bytes) -> Answer:
        protocol, transport = connection.protocol, connection.transport
        if protocol is None or transport is None:
            raise aiohttp.ServerDisconnectedError
        self._used.add(protocol)
        protocol.set_response_params(read_until_eof=True)
        if self._head is None:
            self._head = self._make_head()
        transport.write(b"%s%d\r\n\r\n%s" % (self._head, len(body), body))
        status = 100
        while 100 <= status < 200:  # noqa: PLR2004 - informational
            message, payload = await protocol.read()
            status = message.code
        return Answer(status, message.headers, payload, connection)

    def _make_head(self) -> bytes:
        """Returns the request's head up to its length; a proxy of plain HTTP reads the whole address in it."""
        target = str(self._url) if self._proxy and self._url.scheme == "http" else self._url.raw_path_qs
        length = "Content-Length"
        lines = [f"{name}: {value}" for name, value in self._request.headers.items() if name != length]
        return "\r\n".join([f"POST {target} HTTP/1.1", *lines, f"{length}: "]).encode()


@lru_cache(maxsize=64)
def _timeout(connect_seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=connect_seconds)


def _proxy(url: URL) -> URL | None:
    """Returns the environment's proxy for this address."""
    if url.host is None or proxy_bypass(url.host):
        return None
    address = getproxies().get(url.scheme)
    return URL(address) if address else None
