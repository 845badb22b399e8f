"""The REST load client: raw HTTP/1.1 on a persistent connection; every answer is checked completely."""

import asyncio
import json
import re
import time
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import orjson

from tests import sse
from tests.load import canned
from tests.load.canned import WrongAnswerError

CALL_SECONDS = 30.0
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_STAMP = re.compile(rb"@(\d{%d})" % canned.STAMP_DIGITS)


@dataclass(slots=True)
class Timing:
    """The duration of a call in seconds: to its first byte, to its end, and for paced events from send to receipt."""

    first: float
    total: float
    lags: list[float] = field(default_factory=list)


class Caller(Protocol):
    """One client, which makes one call after another."""

    async def call(self) -> Timing:
        """Makes a call and checks the answer. Raises WrongAnswerError, OSError, TimeoutError, and gRPC's errors."""
        ...

    async def close(self) -> None:
        """Closes the connection."""
        ...


@dataclass(frozen=True, slots=True)
class Target:
    """The address of calls and the expected answers: `model` for Parley; `kind` is unary, burst or paced."""

    address: str
    path: str
    model: str
    kind: str
    key: str = "none"
    session: bool = False


class _Exchange(asyncio.Protocol):
    """A connection that collects one answer at a time, in the received pieces."""

    def __init__(self) -> None:
        self.pieces: list[tuple[int, bytes]] = []
        self._data = bytearray()
        self._head_end = -1
        self._body_end: int | None = None
        self._done: asyncio.Future[bytes] | None = None
        self._lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    async def send(self, request: bytes) -> bytes:
        """Sends a request and returns the complete answer with its head. Raises WrongAnswerError, TimeoutError."""
        if self._lost:
            raise WrongAnswerError("the server closed the connection between two calls")
        self.pieces.clear()
        self._data.clear()
        self._head_end, self._body_end = -1, None
        self._done = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        async with asyncio.timeout(CALL_SECONDS):
            return await self._done

    def data_received(self, data: bytes) -> None:
        self.pieces.append((time.monotonic_ns(), data))
        self._data += data
        if self._head_end < 0:
            self._read_head()
        if self._complete() and self._done and not self._done.done():
            self._done.set_result(bytes(self._data))

    def _read_head(self) -> None:
        """Determines the end of the answer: after `content-length` bytes, or with an empty chunk."""
        self._head_end = self._data.find(b"\r\n\r\n")
        if self._head_end >= 0 and (length := _LENGTH.search(self._data, 0, self._head_end)):
            self._body_end = self._head_end + 4 + int(length[1])

    def _complete(self) -> bool:
        """Returns whether the answer is complete."""
        if self._head_end < 0:
            return False
        if self._body_end is not None:
            return len(self._data) >= self._body_end
        return self._data.endswith(b"\r\n0\r\n\r\n")

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        if self._done and not self._done.done():
            self._done.set_exception(WrongAnswerError(f"the connection broke in mid-answer: {exc}"))


class RestCaller:
    """A client of Parley's REST listener, or of the upstream directly."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._request = _request(target)
        self._exchange: _Exchange | None = None

    async def call(self) -> Timing:
        """Makes a call on the persistent connection. Raises WrongAnswerError, OSError, TimeoutError."""
        connection = self._exchange or await self._connect()
        start = time.monotonic_ns()
        answer = await self._send(connection)
        pieces = connection.pieces
        timing = Timing((pieces[0][0] - start) / 1e9, (pieces[-1][0] - start) / 1e9, _lags(pieces))
        check(self._target, answer)
        return timing

    async def answer(self) -> bytes:
        """Makes a call; returns the complete answer with its head, unchecked. Raises the errors of `call`."""
        return await self._send(self._exchange or await self._connect())

    async def _send(self, connection: _Exchange) -> bytes:
        try:
            return await connection.send(self._request)
        except Exception:
            await self.close()
            raise

    async def close(self) -> None:
        """Closes the connection; the next call reconnects."""
        if self._exchange:
            self._exchange.transport.abort()
        self._exchange = None

    async def _connect(self) -> _Exchange:
        host, _, port = self._target.address.rpartition(":")
        _, self._exchange = await asyncio.get_running_loop().create_connection(_Exchange, host, int(port))
        return self._exchange


def _request(target: Target) -> bytes:
    """Returns the request, head and body."""
    content: dict[str, Any] = {"model": target.model, "messages": [{"role": "user", "content": canned.QUESTION}]}
    if target.kind != "unary":
        content["stream"] = True
    body = json.dumps(content).encode()
    head = (
        f"POST {target.path} HTTP/1.1\r\nhost: {target.address}\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {target.key}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _lags(pieces: list[tuple[int, bytes]]) -> list[float]:
    """Returns the latency of paced events in seconds; events that are split between two pieces are omitted."""
    return [(arrived - int(sent)) / 1e9 for arrived, piece in pieces for sent in _STAMP.findall(piece)]


def check(target: Target, answer: bytes) -> None:
    """Raises WrongAnswerError unless the answer is a 200 with the complete content, and a session if expected."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        raise WrongAnswerError(f"{head.splitlines()[0].decode()}: {body[:200].decode(errors='replace')}")
    if target.kind == "unary":
        parsed = orjson.loads(body if _LENGTH.search(head) else unchunk(body))
        choice, session = parsed["choices"][0], parsed.get("chatSessionId")
        canned.check_text(target.kind, choice["message"]["content"], choice["finish_reason"])
    else:
        session = _check_events(target.kind, unchunk(body))
    if target.session != bool(session):
        raise WrongAnswerError(f"the session is {session!r}")


def unchunk(body: bytes) -> bytes:
    """Returns the data of a chunked body, which ends with the empty chunk."""
    parts: list[bytes] = []
    start = 0
    while True:
        line_end = body.index(b"\r\n", start)
        length = int(body[start:line_end], 16)
        if length == 0:
            return b"".join(parts)
        parts.append(body[line_end + 2 : line_end + 2 + length])
        start = line_end + 2 + length + 2


def _check_events(kind: str, body: bytes) -> str | None:
    """Raises WrongAnswerError unless the events are a complete stream; returns its session."""
    try:
        chunks, is_done = sse.read(body)
    except AssertionError as error:
        raise WrongAnswerError(str(error)) from error
    if not is_done:
        raise WrongAnswerError(f"the stream ends with {str(chunks[-1:])[:200]}")
    text, finish_reason, session = [], None, None
    for chunk in chunks:
        session = chunk.get("chatSessionId", session)
        for choice in chunk["choices"]:
            text.append(choice["delta"].get("content") or "")
            finish_reason = choice.get("finish_reason") or finish_reason
    canned.check_text(kind, "".join(text), finish_reason)
    return session
