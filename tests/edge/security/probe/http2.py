"""A client of HTTP/2 frames, for requests that no library sends: unfinished, reset at once, headers alone."""

import asyncio
import struct
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, ACK = 1, 4, 1
CANCEL = 8
_MAX_FRAME = 16384
_MAX_STREAMS, _INITIAL_WINDOW = 3, 4
_DEFAULT_WINDOW = 65535
Header = tuple[str, str]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Returns the bytes of a frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def encode(headers: Iterable[Header]) -> bytes:
    """Returns a header block of HPACK: literals that are neither indexed nor compressed (RFC 7541, 6.2.2)."""
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in headers)


def _text(text: str) -> bytes:
    """Returns a length-prefixed string; the prefix has seven bits (RFC 7541, 5.1)."""
    data, prefix = text.encode(), b""
    if len(data) < 127:
        return bytes((len(data),)) + data
    rest = len(data) - 127
    while rest >= 128:
        prefix += bytes((rest % 128 + 128,))
        rest //= 128
    return b"\x7f" + prefix + bytes((rest,)) + data


class Connection:
    """One connection. `frames` counts the received frames by kind; `ended` has the streams that the server ended."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.frames: Counter[int] = Counter()
        self.ended: set[int] = set()
        self.closed = asyncio.Event()
        self.settled = asyncio.Event()
        self.max_streams = 2**31
        self.window = _DEFAULT_WINDOW
        self._reader, self._writer = reader, writer
        self._initial = _DEFAULT_WINDOW
        self._windows: defaultdict[int, int] = defaultdict(int)
        self._changed = asyncio.Event()
        self._next = 1
        self._task = asyncio.create_task(self._receive())

    @classmethod
    async def open(cls, address: str, source: str | None = None) -> "Connection":
        """Connects to `127.0.0.1:8080`, from another address if one is given, and waits for the server's settings."""
        host, _, port = address.rpartition(":")
        local = (source, 0) if source else None
        connection = cls(*await asyncio.open_connection(host, int(port), local_addr=local))
        connection.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0))
        try:
            await connection.settled.wait()
        except asyncio.CancelledError:
            await connection.close()
            raise
        return connection

    def send(self, data: bytes) -> None:
        """Sends bytes, unless the connection is closed."""
        if not self.closed.is_set() and not self._writer.transport.is_closing():
            self._writer.write(data)

    async def flush(self) -> None:
        """Waits until the kernel has taken what was sent. Raises OSError."""
        await self._writer.drain()

    def request(self, headers: Sequence[Header], *, end: bool = False) -> int:
        """Begins a stream with these headers; returns its number."""
        stream, self._next = self._next, self._next + 2
        self._windows[stream] = self._initial
        self.send(frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, encode(headers)))
        return stream

    def reset(self, stream: int) -> None:
        """Cancels a stream."""
        self.send(frame(RST_STREAM, 0, stream, struct.pack(">I", CANCEL)))

    async def send_body(self, stream: int, data: bytes) -> bool:
        """Sends a part of the body, as the windows allow; returns whether the server has taken all of it."""
        view = memoryview(data)
        while view and not self.closed.is_set() and stream not in self.ended:
            size = min(len(view), _MAX_FRAME, self.window, self._windows[stream])
            if size <= 0:
                self._changed.clear()
                await self._changed.wait()
                continue
            self.window -= size
            self._windows[stream] -= size
            self.send(frame(DATA, 0, stream, bytes(view[:size])))
            view = view[size:]
            await self.flush()
        return not view

    async def close(self) -> None:
        """Closes the connection."""
        self._task.cancel()
        self._writer.transport.abort()

    async def _receive(self) -> None:
        """Reads frames until the connection ends."""
        try:
            while True:
                head = await self._reader.readexactly(9)
                payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
                self._read(head[3], head[4], int.from_bytes(head[5:9], "big") & 0x7FFFFFFF, payload)
                self._changed.set()
        except (OSError, asyncio.IncompleteReadError):
            self.closed.set()
            self.settled.set()
            self._changed.set()

    def _read(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """Applies a received frame."""
        self.frames[kind] += 1
        if kind == SETTINGS and not flags & ACK:
            self._apply(payload)
            self.send(frame(SETTINGS, ACK, 0))
            self.settled.set()
        elif kind == PING and not flags & ACK:
            self.send(frame(PING, ACK, 0, payload))
        elif kind == WINDOW_UPDATE:
            self._widen(stream, int.from_bytes(payload, "big"))
        elif kind == RST_STREAM or (kind in {DATA, HEADERS} and flags & END_STREAM):
            self.ended.add(stream)

    def _widen(self, stream: int, size: int) -> None:
        """Adds to the window of a stream, or of the connection."""
        if stream:
            self._windows[stream] += size
        else:
            self.window += size

    def _apply(self, payload: bytes) -> None:
        """Applies the server's settings."""
        for place in range(0, len(payload), 6):
            name, value = struct.unpack(">HI", payload[place : place + 6])
            if name == _MAX_STREAMS:
                self.max_streams = value
            elif name == _INITIAL_WINDOW:
                self._initial = value
