"""HTTP/1.1 with the upstream through a bare `asyncio.Protocol`: only what the upstream of the benchmark needs."""

import asyncio
import re
from typing import cast

_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
_OK = b"HTTP/1.1 200 "
_HEAD_END = b"\r\n\r\n"


class ExchangeError(Exception):
    """The upstream does not answer with a 200, or not completely."""


class _Connection(asyncio.Protocol):
    """A connection whose data one reader awaits."""

    def __init__(self) -> None:
        self._data = b""
        self._waiter: asyncio.Future[None] | None = None
        self._lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def read(self) -> bytes:
        """Returns the data that have arrived, at least one byte. Raises ExchangeError at the end."""
        if not self._data:
            if self._lost:
                raise ExchangeError("the upstream has closed the connection")
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        data, self._data = self._data, b""
        return data or await self.read()


class Exchanges:
    """Requests to the upstream at `127.0.0.1:9000`, with a pool of idle connections for unary answers."""

    def __init__(self, address: str) -> None:
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self._idle: list[_Connection] = []
        self._head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\n"
            "content-type: application/json\r\ncontent-length: "
        ).encode()

    async def post(self, body: bytes) -> bytes:
        """Returns the body of a unary answer."""
        connection = self._idle.pop() if self._idle else await self._connect()
        self._send(connection, body)
        data = await connection.read()
        while (answer := _body(data)) is None:
            data += await connection.read()
        self._idle.append(connection)
        return answer

    async def stream(self, body: bytes) -> "EventStream":
        """Sends a request on a fresh connection; returns its stream of events."""
        connection = await self._connect()
        self._send(connection, body)
        return EventStream(connection)

    def _send(self, connection: _Connection, body: bytes) -> None:
        connection.transport.write(b"%b%d\r\n\r\n%b" % (self._head, len(body), body))

    async def _connect(self) -> _Connection:
        _, connection = await asyncio.get_running_loop().create_connection(_Connection, self._host, self._port)
        return connection


def _body(data: bytes) -> bytes | None:
    """Returns the body of an answer with its length; None if it is incomplete."""
    head_end = data.find(_HEAD_END)
    if head_end < 0:
        return None
    length = _LENGTH.search(data, 0, head_end)
    if length is None or not data.startswith(_OK):
        raise ExchangeError(data[:200].decode(errors="replace"))
    body = data[head_end + 4 :]
    return body if len(body) >= int(length[1]) else None


class EventStream:
    """The server-sent events of one answer, whose chunks each hold complete events."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._data = b""
        self._in_body = False
        self.ended = False

    async def read(self) -> list[bytes]:
        """Returns the chunks that have arrived; sets `ended` with the last."""
        self._data += await self._connection.read()
        while not self._in_body:
            head_end = self._data.find(_HEAD_END)
            if head_end >= 0:
                if not self._data.startswith(_OK):
                    raise ExchangeError(self._data[:200].decode(errors="replace"))
                self._in_body, self._data = True, self._data[head_end + 4 :]
            else:
                self._data += await self._connection.read()
        return self._chunks()

    def close(self) -> None:
        """Closes the connection."""
        self._connection.transport.close()

    def _chunks(self) -> list[bytes]:
        """Takes the complete chunks out of the received data."""
        data, position, chunks = self._data, 0, []
        while (line_end := data.find(b"\r\n", position)) >= 0:
            start = line_end + 2
            end = start + int(data[position:line_end], 16)
            if len(data) < end + 2:
                break
            position = end + 2
            if start == end:
                self.ended = True
                break
            chunks.append(data[start:end])
        self._data = data[position:]
        return chunks
