"""An HTTP response whose body is read as it arrives."""

import asyncio
import re
from contextlib import suppress

from parley.backends.http.connection import Connection
from parley.backends.http.decoding import ENCODINGS, PIECE, Decoder
from parley.backends.http.errors import FAILURES
from parley.backends.http.pool import Pool

_LINGER = 0.25  # seconds that `release` waits for the end of a body before it closes the connection
_NAME = re.compile(r"[a-z]{1,12}")
_ENCODINGS = frozenset(ENCODINGS.split(", "))
_LENGTH = len("content-encoding")
_OK = 200


class Response:
    """A response whose head has arrived; `read` decompresses the body.

    The caller must call `release` or `close`.

    Args:
        connection: The connection that receives the response.
        pool: Gets the connection back once, when it is no longer needed.

    Attributes:
        connection: Receives the body. With its `hold` the next read returns what arrives within a time together.
        status: The status code.
        unsupported_encoding: The content encoding if it cannot be decompressed, else None.
        is_readable: Whether the status is 200 and the body can be decompressed.
    """

    __slots__ = (
        "_decoder",
        "_headers",
        "_pool",
        "connection",
        "is_readable",
        "status",
        "unsupported_encoding",
    )

    def __init__(self, connection: Connection, pool: Pool) -> None:
        self.status = connection.status
        self.connection = connection
        self._headers = connection.headers
        self._pool: Pool | None = pool
        self._decoder: Decoder | None = None
        self.unsupported_encoding: str | None = None
        for name in connection.headers:
            if len(name) == _LENGTH and name.lower() == b"content-encoding":
                self._set_encoding(connection.headers[name])
        self.is_readable = self.status == _OK and self.unsupported_encoding is None

    @property
    def encoding_error(self) -> str:
        """The text of the error for an unsupported encoding."""
        encoding = self.unsupported_encoding or ""
        name = repr(encoding) if _NAME.fullmatch(encoding) else "that is no word"
        return f"the answer has a content encoding, {name}, which was not requested"

    @property
    def headers(self) -> dict[str, str]:
        """The headers by name in lower case."""
        return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in self._headers.items()}

    def drop_headers(self) -> None:
        """Drops the headers, which nothing reads after the beginning of a stream."""
        self.connection.drop_headers()
        self._headers = self.connection.headers

    @property
    def at_end(self) -> bool:
        """Whether the body was read to its end."""
        connection = self.connection
        return connection.is_complete and not connection.chunks and self._decoder is None

    async def read(self, until: float | None = None) -> bytes:
        """Returns the bytes received so far, waiting for at least one; b"" at the end of the body.

        Bytes received before a failure are returned first; the next call raises the failure.

        Args:
            until: When the exchange fails with TimeoutError, as a time of the event loop's clock; None keeps the
                deadline, which passes only while something waits.

        Raises:
            FAILURES: If the connection fails or the body is malformed.
        """
        data = self.poll(until)
        while data is None:
            await self.connection.wait(until)
            data = self.poll()
        if len(data) >= PIECE:
            await asyncio.sleep(0)  # the next read may not block; yields to timers and other tasks
        return data

    def poll(self, until: float | None = None) -> bytes | None:
        """Returns what `read` returns, or None if `Connection.wait` must be awaited before the next poll.

        A stream, which may wait for long, is spared a coroutine of 0.3 KB. Raises what `read` raises.
        """
        connection, decoder = self.connection, self._decoder
        if connection.chunks and until is not None:
            connection.check(until)
        data = decoder.read() if decoder is not None else b""
        while not data:
            if connection.hold_timer is not None or not connection.chunks:
                if connection.error is not None:
                    raise connection.error
                if not connection.is_complete:
                    return None
                self._end_decoding()
                return b""
            data = connection.take()
            if decoder is not None:
                decoder.feed(data)
                data = decoder.read()
        return data

    def take_complete(self) -> bytes | None:
        """Returns the body and ends the response if all of the body has arrived and is not compressed; else None.

        Most answers without streaming arrive at once; then nothing needs to be waited for.
        """
        connection = self.connection
        if self._decoder is not None or not connection.is_complete:
            return None
        body = connection.take()
        self._end()
        return body

    async def release(self) -> None:
        """Returns the connection to the pool if the rest of the body arrives within `_LINGER`; else closes it."""
        if not self.connection.is_complete:
            await self._skip_rest()
        self._end()

    def close(self) -> None:
        """Closes the connection; does nothing after `release`."""
        if self._pool is not None:
            self.connection.close()
            self._end()

    def _end(self) -> None:
        if self._pool is not None:
            pool, self._pool = self._pool, None
            pool.give_back(self.connection)

    def _set_encoding(self, value: bytes) -> None:
        encoding = value.decode("latin-1").strip().lower()
        if encoding in _ENCODINGS:
            self._decoder = Decoder(encoding)
        elif encoding not in {"", "identity"}:
            self.unsupported_encoding = encoding

    def _end_decoding(self) -> None:
        """Ends the decompression, if any. Raises MalformedBody if its end is missing."""
        if self._decoder is not None:
            self._decoder.end()
            self._decoder = None

    async def _skip_rest(self) -> None:
        connection = self.connection
        with suppress(*FAILURES):
            async with asyncio.timeout(_LINGER):
                while not connection.is_complete and connection.error is None:
                    connection.take()
                    await connection.wait()
