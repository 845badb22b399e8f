"""One HTTP/1.1 connection: sends a request and parses its response with llhttp."""

import asyncio
import ssl
from collections.abc import Mapping
from time import monotonic
from typing import cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from parley.backends.deadlines import TICK
from parley.backends.http import repeated_length
from parley.backends.http.errors import Disconnected, HttpError, MalformedBody, MalformedHead

_MAX_BUFFERED = 64 * 1024  # bytes; above it reading is paused until the body is read. A head must not be longer
_MAX_HEADERS = 256
_EARLY = 0.001  # seconds by which the timer of a hold may fire early: the next hold must not end at once for that
_NEVER = float("inf")
_NO_HEADERS: Mapping[bytes, bytes] = {}


class Connection(asyncio.Protocol):
    """A connection that carries one exchange after another.

    Attributes:
        opened: When the connection was made, on the monotonic clock.
        released: When the latest exchange ended, on the monotonic clock.
        is_open: Whether a request can be sent.
        status: The status of the response; 0 until its head has arrived.
        headers: The headers of the response, as they were received; of several with one name the last one.
        chunks: The parts of the body that were received and not yet read.
        is_complete: Whether the end of the response has arrived.
        can_continue: Whether another request can follow on the connection; false until the response is complete.
        error: Why the exchange failed.
        hold_timer: Ends the time in which the body is collected; None if it is not.
    """

    __slots__ = (
        "__weakref__",
        "_buffered",
        "_deadline",
        "_fires_at",
        "_head",
        "_is_framed",
        "_is_paused",
        "_loop",
        "_parser",
        "_received",
        "_timer",
        "_transport",
        "_waiter",
        "can_continue",
        "chunks",
        "error",
        "headers",
        "hold_timer",
        "is_complete",
        "is_open",
        "on_body",
        "on_header",
        "opened",
        "released",
        "status",
    )

    def __init__(self) -> None:
        self.opened = self.released = monotonic()
        self.is_open = False
        self.status = 0
        self.headers = _NO_HEADERS
        self._is_framed = False  # known once the headers are dropped
        self.chunks: list[bytes] = []
        self.is_complete = True
        self.error: Exception | None = None
        self.can_continue = False
        self._buffered = 0  # bytes received since the latest `take`, framing included
        self._is_paused = False
        self._deadline = self._fires_at = _NEVER
        self._timer: asyncio.TimerHandle | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.hold_timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._head = b""  # a part of the head, if it did not arrive at once
        self._received: dict[bytes, bytes] = {}  # headers, and then trailers
        # The parser calls them without a Python frame for each header and chunk.
        self.on_header = self._received.__setitem__
        self.on_body = self.chunks.append
        self._parser = self._new_parser()

    def _new_parser(self) -> HttpResponseParser:
        parser = HttpResponseParser(self)
        parser.set_dangerous_leniencies(  # these lose nothing: servers send such heads and chunks
            lenient_headers=True,
            lenient_chunked_length=True,  # the length is ignored (RFC 9112, 6.3)
            lenient_optional_cr_before_lf=True,
            lenient_spaces_after_chunk_size=True,
        )
        return parser

    def send(self, request: bytes, deadline: float) -> None:
        """Sends a request; its response must be complete by the deadline, unless `wait` moves it."""
        self.status = 0
        self._is_framed = False
        self._received.clear()
        self.chunks.clear()
        self._buffered = 0
        self.is_complete = self.can_continue = False
        self.error = None
        self._deadline = deadline
        self._transport.write(request)

    def wait(self, deadline: float | None = None) -> "asyncio.Future[None]":
        """Returns a future that is done when the state of the exchange may have changed.

        At the deadline the exchange fails with TimeoutError, but only while something waits: what the reader does
        between two waits takes time that is no silence. A timer that fires early is set again, so that an exchange
        rarely needs one of its own.

        Args:
            deadline: A new deadline, as a time of the event loop's clock; None keeps the latest one.
        """
        if deadline is not None:
            self._deadline = deadline
        if self._deadline < self._fires_at and self.is_open:
            self._set_timer(self._deadline)
        self._waiter = waiter = self._loop.create_future()
        return waiter

    def check(self, deadline: float) -> None:
        """Makes an exchange that goes on fail if the deadline has passed, also for a reader that need not wait."""
        if not self.is_complete and self._loop.time() >= deadline:
            self.fail(TimeoutError())

    def hold(self, seconds: float) -> None:
        """Collects the body until `hold_end`, or until the exchange ends or the buffer is full."""
        if self.hold_timer is None and not self._is_urgent():
            self.hold_timer = self._loop.call_at(hold_end(self._loop.time(), seconds), self._end_hold)

    async def wait_head(self) -> int:
        """Waits for the head of the response. Returns its status; raises the error of the exchange."""
        while not self.status:
            if self.error is not None:
                raise self.error
            await self.wait()
        return self.status

    def drop_headers(self) -> None:
        """Drops the headers, and keeps whether they say where the body ends."""
        self._is_framed, self.headers = self._has_framing(), _NO_HEADERS

    def take(self) -> bytes:
        """Removes and returns the buffered part of the body."""
        chunks = self.chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._buffered = 0
        if self._is_paused:
            self._is_paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()
        return data

    def fail(self, error: Exception) -> None:
        """Ends the exchange with an error, which is raised after the buffered part of the body, and closes."""
        if self.error is None and not self.is_complete:
            self.error = error
        self.close()
        self._wake()

    async def start_tls(self, context: ssl.SSLContext, host: str) -> "Connection":
        """Starts TLS with the server behind this connection to a proxy. Returns the connection to the server."""
        connection = Connection()
        transport = await self._loop.start_tls(self._transport, connection, context, server_hostname=host)
        if transport is None:
            raise Disconnected("the proxy closed the tunnel")
        connection.connection_made(transport)
        return connection

    def close(self) -> None:
        """Closes the connection at once."""
        if self.is_open:
            self.is_open = False
            self._stop_timer()
            self._transport.abort()
            if self.hold_timer is not None:
                self.hold_timer.cancel()
                self.hold_timer = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Stores the transport."""
        self._transport = cast("asyncio.Transport", transport)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        """Parses a part of the response. Bytes outside of an exchange close the connection."""
        if self.is_complete:
            self.close()
            return
        self._buffered += len(data)
        again: bytes | None = None
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            again = self._with_single_length(data, error)
            if again is None:
                self.fail(self._malformed(error))
                return
        else:
            if not self.status:
                self._head += data
        if again:
            self.data_received(again)
            return
        if self._buffered > _MAX_BUFFERED and not self.is_complete:
            self._pause()
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        """Ends a body whose length is not known; fails every other exchange."""
        if not self.is_complete and self.error is None:
            if self.status and error is None and not self._has_framing():
                self.is_complete = True
            elif self.status:
                self.error = MalformedBody(_MALFORMED.format(error or "the server closed the connection"))
            elif self._buffered:
                self.error = MalformedHead(f"the head of the response is truncated: {error or 'end of the stream'}")
            else:
                self.error = Disconnected(str(error or "the server closed the connection without a response"))
        self.is_open = False
        self._stop_timer()
        self._wake()

    def on_message_begin(self) -> None:
        """Refuses a second response; only a 1xx response may precede another."""
        if self.is_complete:
            raise MalformedBody("bytes after the response")

    def on_headers_complete(self) -> None:
        """Makes the status and the headers known, unless it is a 1xx status."""
        status, received = self._parser.get_status_code(), self._received
        if len(received) > _MAX_HEADERS:
            raise MalformedHead("too many headers")
        if not 100 <= status < 200:  # noqa: PLR2004 - informational
            self.status, self.headers = status, received.copy()
        received.clear()
        self._head = b""

    def on_message_complete(self) -> None:
        """Ends the exchange, unless the response was a 1xx one."""
        if self.status:
            self.is_complete = True
            self.can_continue = self._parser.should_keep_alive()

    def _pause(self) -> None:
        """Stops receiving until the body is read. A head, a trailer or the size of a chunk is never that long."""
        if not self.chunks:
            reason = f"more than {_MAX_BUFFERED} bytes without a part of the body"
            self.fail(MalformedBody(_MALFORMED.format(reason)) if self.status else MalformedHead(reason))
        elif not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()

    def _with_single_length(self, data: bytes, error: Exception) -> bytes | None:
        """Returns the response so far with its length once, and has it parsed anew.

        Returns:
            Nothing until all of the head has arrived: the parser refuses the further parts too. None if a repeated
            length is not what the parser has refused.
        """
        if self.status or not repeated_length.is_cause(error):
            return None
        self._head += data
        response, end = self._head, repeated_length.end_of_head(self._head)
        if not end:
            return b""
        head = repeated_length.with_single_length(response[:end])
        if head is None:
            return None
        self._head = b""
        self._buffered = 0
        self._received.clear()
        self._parser = self._new_parser()
        return head + response[end:]

    def _malformed(self, error: Exception) -> HttpError:
        reason = str(error.__context__ or error) if isinstance(error, HttpParserError) else "an upgrade"
        if self.status:
            return MalformedBody(_MALFORMED.format(reason))
        return MalformedHead(f"the response is not valid HTTP/1.1: {reason}")

    def _has_framing(self) -> bool:
        """Returns whether the head says where the body ends (RFC 9112, 6.3)."""
        if self._is_framed:
            return True
        names = {name.lower(): value.lower() for name, value in self.headers.items()}
        encoding = names.get(b"transfer-encoding")
        return b"content-length" in names if encoding is None else encoding.rstrip().endswith(b"chunked")

    def _end_hold(self) -> None:
        self.hold_timer = None
        if self.chunks:
            self._wake()

    def _is_urgent(self) -> bool:
        return self.is_complete or self._is_paused or self.error is not None

    def _wake(self) -> None:
        if self.hold_timer is not None:
            if not self._is_urgent():
                return
            self.hold_timer.cancel()
            self.hold_timer = None
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _set_timer(self, time: float) -> None:
        self._stop_timer()
        self._timer, self._fires_at = self._loop.call_at(time, self._on_timer), time

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._fires_at = None, _NEVER

    def _on_timer(self) -> None:
        self._timer, self._fires_at = None, _NEVER
        if self._waiter is None:
            return  # the next wait sets the timer
        if self._loop.time() + TICK >= self._deadline:
            self.fail(TimeoutError())
        else:
            self._set_timer(self._deadline)


def hold_end(now: float, seconds: float) -> float:
    """Returns when a hold ends that begins now.

    The holds of all connections end at common moments, so that their streams share the wake-ups of the worker, of Envoy
    and of the clients: with 20 streams an event costs a sixth less. The first hold of a stream is shorter for that, but
    at least half as long; each later one begins at such a moment, and lasts the whole time.

    Args:
        now: The time of the event loop's clock.
        seconds: The longest time of a hold.
    """
    end = now + seconds + _EARLY
    return end - end % (seconds / 2)


_MALFORMED = "the body is malformed or truncated: {}"
