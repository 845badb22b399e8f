"""The upstream: an HTTP/1.1 server process with canned answers, at minimal cost.

`python -m tests.load.upstream` prints its port and serves until it is stopped. The request's `model` selects the
answer: `unary`, `burst` with every event in one write, `paced` with an event each GAP_SECONDS.
"""

import asyncio
import re
import sys
import time
from typing import cast

import uvloop

from tests.load import canned

_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_MODEL = re.compile(rb'"model":\s*"(\w+)"')
_JSON_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """Returns data as one HTTP chunk: servers send each event as a separate chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


_UNARY = _JSON_HEAD % len(canned.completion()) + canned.completion()
_ROLE = _STREAM_HEAD + chunk(canned.role())
_ENDING = b"".join(map(chunk, canned.ending())) + b"0\r\n\r\n"
_BURST = _ROLE + b"".join(chunk(canned.delta(token)) for token in canned.TOKENS) + _ENDING
_PIECE_BEFORE, _PIECE_AFTER = chunk(canned.delta(canned.stamp(0))).split(canned.stamp(0).encode())


class Upstream(asyncio.Protocol):
    """One persistent connection with one request after another."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Stores the transport."""
        self._transport = cast("asyncio.Transport", transport)
        self._buffer = b""
        self._pieces: list[bytes] = []
        self._missing = 0

    def data_received(self, data: bytes) -> None:
        """Answers every complete request. The pieces of a large request are joined once."""
        self._pieces.append(data)
        self._missing -= len(data)
        if self._missing > 0:
            return
        self._buffer = b"".join((self._buffer, *self._pieces))
        self._pieces.clear()
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._buffer, 0, end)
            non_streaming = end + 4 + (int(length[1]) if length else 0)
            self._missing = non_streaming - len(self._buffer)
            if self._missing > 0:
                return
            request, self._buffer = self._buffer[:non_streaming], self._buffer[non_streaming:]
            self._answer(request, end)

    def _answer(self, request: bytes, head_end: int) -> None:
        """Sends the answer for the request's model."""
        model = _MODEL.search(request, head_end)
        match model[1] if model else None:
            case b"unary":
                self._transport.write(_UNARY)
            case b"burst":
                self._transport.write(_BURST)
            case b"paced" | b"coalesced":
                self._pace(0, asyncio.get_running_loop().time())
            case _:
                self._transport.write(_NOT_FOUND)

    def _pace(self, number: int, start: float) -> None:
        """Sends one event of a paced stream and schedules the next, without an accumulating delay."""
        if self._transport.is_closing():
            return
        piece = b"".join((_PIECE_BEFORE, canned.stamp(time.monotonic_ns()).encode(), _PIECE_AFTER))
        if number == 0:
            piece = _ROLE + piece
        if number == canned.EVENTS - 1:
            self._transport.write(piece + _ENDING)
            return
        self._transport.write(piece)
        when = start + (number + 1) * canned.GAP_SECONDS
        asyncio.get_running_loop().call_at(when, self._pace, number + 1, start)


async def serve() -> None:
    """Serves on a free loopback port until the task is cancelled; prints the port."""
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve())
