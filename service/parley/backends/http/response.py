"""An HTTP response whose body is read as it arrives, and the state of its connection."""

import asyncio
from contextlib import suppress
from time import monotonic

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import StreamReader
from multidict import CIMultiDictProxy

FAILURES = (aiohttp.ClientError, HttpProcessingError, OSError)
"""The exceptions that a call raises; TimeoutError is a subclass of OSError."""

_LINGER = 0.25  # seconds that `release` waits for the end of a body before it closes the connection
_LARGE_BODY = 128 * 1024  # bytes; a read this large means decompression, or an upstream faster than the reader
_ENCODINGS = frozenset({"gzip", "deflate", "zstd", "br", "identity"})
"""The content encodings that aiohttp decompresses; it raises an error if an optional decoder is not installed."""


class Response:
    """A response whose head has arrived; `read` decompresses the body.

    The caller must call `release` or `close`.
    """

    __slots__ = ("_body", "_connection", "_info", "_reusable", "headers", "status")

    def __init__(  # noqa: PLR0913 - the parts of a response
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
        """The content encoding if aiohttp cannot decompress it, else None."""
        encoding = self.headers.get("Content-Encoding")
        return encoding if encoding and encoding.lower() not in _ENCODINGS else None

    async def read(self) -> bytes:
        """Returns the bytes received so far, waiting for at least one; b"" at the end of the body.

        Bytes received before a failure are returned first; the next call raises the failure. aiohttp discards them.

        Raises:
            FAILURES: If the connection fails or the body is malformed.
        """
        try:
            data = await self._body.readany()
        except FAILURES:
            if remaining := self._body._read_nowait(-1):  # noqa: SLF001 - aiohttp has no public access to the buffered bytes
                return remaining
            raise
        if len(data) >= _LARGE_BODY:
            await asyncio.sleep(0)  # the next read may not block; yields to timers and other tasks
        return data

    @property
    def at_end(self) -> bool:
        """Whether the body was read to its end."""
        return self._body.at_eof()

    async def release(self) -> None:
        """Returns the connection to the pool if the rest of the body arrives within `_LINGER`; else closes it."""
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
        """Makes a blocked read raise TimeoutError, and later reads once the buffered bytes are consumed.

        Stops receiving; otherwise a fast upstream would never trigger the timeout.
        """
        self._body.set_exception(TimeoutError())
        self._connection.close()

    def close(self) -> None:
        """Closes the connection; does nothing after `release`."""
        if self._info.body is self._body:
            self._info.body = None
        self._connection.close()


class ConnectionInfo:
    """State of one connection.

    Attributes:
        since: When the connection was opened, on the monotonic clock.
        body: The response body that is being received, if any.
    """

    __slots__ = ("body", "since")

    def __init__(self, protocol: ResponseHandler) -> None:
        self.since = monotonic()
        self.body: StreamReader | None = None
        if protocol.closed is not None:
            protocol.closed.add_done_callback(self._on_lost)

    def _on_lost(self, closed: asyncio.Future[None]) -> None:
        """Fails a blocked read of the body; aiohttp does not do so after a framing error."""
        reason = None if closed.cancelled() else closed.exception()
        body, self.body = self.body, None
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(aiohttp.ClientPayloadError(f"the body is malformed or truncated: {_reason(reason)}"))


def _reason(error: BaseException | None) -> str:
    """Returns why a connection was lost, without bytes of the response, which framing errors quote."""
    return type(error).__name__ if isinstance(error, HttpProcessingError | aiohttp.ClientError) else str(error)
