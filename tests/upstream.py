"""A scripted upstream: a real HTTP server in a thread, for tests of its clients.

    with ScriptedUpstream() as upstream:
        upstream.answer(completion("Hello"))                              # a JSON answer
        upstream.answer(Events([*chunks("Hel", "lo"), DONE]))             # a stream
        upstream.answer(Events([*chunks("Hel"), gate, DONE]))             # waits in the middle for gate.set()
        upstream.answer(Json({"error": {"message": "no"}}, status=429, headers={"Retry-After": "2"}))
        ... call upstream.url ...
        assert "hi" == upstream.requests[0].json["messages"][0]["content"]
        assert upstream.requests[0].closed.wait()                         # the client has closed the socket

Answers are sent in order; without one, `upstream.default(request)` answers: by default "Hello there.", unary or
streaming as requested. Any answer may be a function of the request. All methods may be called from any thread; async
tests await `signal.arrives()` instead of `signal.wait()`, and `upstream.arrives(n)` instead of `upstream.received(n)`.
"""

import asyncio
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

PATIENCE = 10.0
"""Time limit of every wait, in seconds; only a failing test reaches it."""


class Signal:
    """An event that one side sets and the other waits for, in threads and event loops."""

    def __init__(self) -> None:
        self._future: Future[None] = Future()
        self._lock = threading.Lock()

    def set(self) -> None:
        """Sets the event; a second time does nothing."""
        with self._lock:
            if not self._future.done():
                self._future.set_result(None)

    def is_set(self) -> bool:
        """Returns whether the event is set."""
        return self._future.done()

    def wait(self, timeout: float = PATIENCE) -> bool:
        """Waits in a thread; returns False after `timeout` seconds."""
        with suppress(FutureTimeoutError):
            self._future.result(timeout)
        return self._future.done()

    async def arrives(self, timeout: float = PATIENCE) -> bool:  # noqa: ASYNC109 - a bool reads better in an assert
        """Waits on an event loop; returns False after `timeout` seconds."""
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(self._future)), timeout)
        return self._future.done()


Gate = Signal
"""Script step: the upstream continues after the test sets the event."""


@dataclass(frozen=True)
class Delay:
    """Script step: the upstream sends nothing for the given seconds."""

    seconds: float


@dataclass(frozen=True)
class Cut:
    """Script step: the upstream closes the connection, with a TCP reset if `reset` is set."""

    reset: bool = False


@dataclass(frozen=True)
class Stall:
    """Script step: the upstream sends nothing more and keeps the connection open."""


Step = bytes | str | dict[str, Any] | Signal | Delay | Cut | Stall


@dataclass(frozen=True)
class Json:
    """An answer with a JSON body, after a delay or a gate if given."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    wait: Step = b""

    def steps(self) -> list[Step]:
        """Returns the answer's bytes."""
        body = json.dumps(self.body).encode()
        return [self.wait, _head(self.status, {"Content-Type": "application/json", **self.headers}, len(body)) + body]


@dataclass(frozen=True)
class Events:
    """A stream of server-sent events. A dict becomes `data: {…}`; strings and bytes are sent unchanged.

    With `together` the events up to the next gate, delay, cut or stall are sent in one write, as a burst.
    """

    events: Iterable[Step]
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    together: bool = False

    def steps(self) -> list[Step]:
        """Returns the bytes in HTTP chunks, and the delays between them."""
        steps: list[Step] = [_head(self.status, {"Content-Type": "text/event-stream", **self.headers}, None)]
        for item in self.events:
            step = _chunk(event(item)) if isinstance(item, bytes | str | dict) else item
            if self.together and isinstance(step, bytes) and isinstance(steps[-1], bytes):
                steps[-1] += step
            else:
                steps.append(step)
        return [*steps, b"0\r\n\r\n"]


@dataclass(frozen=True)
class Raw:
    """Bytes on the socket, including the status line, with delays between them. Then the connection is closed."""

    pieces: Sequence[Step]

    def steps(self) -> list[Step]:
        """Returns the pieces, and the end of the connection."""
        return [*self.pieces, Cut()]


@dataclass
class Received:
    """A received request. `json` keeps the order of keys; `closed` is set when the client closes the socket."""

    method: str
    path: str
    headers: dict[str, str]
    raw: bytes
    connection: int
    closed: Signal = field(default_factory=Signal)

    @property
    def json(self) -> Any:
        """Returns the parsed body."""
        return json.loads(self.raw)


Answer = Json | Events | Raw
Script = Answer | dict[str, Any] | Callable[[Received], Answer | dict[str, Any]]


class ScriptedUpstream:
    """The server, as a context manager; `url` is a `base_url` for the backend, which ends in `/v1`."""

    def __init__(self, unix_socket: Path | None = None) -> None:
        self.requests: list[Received] = []
        self.connections = 0
        self.turned_away: list[float] = []
        self.default: Script = hello
        self.url = "http://127.0.0.1/v1"
        self._unix_socket = unix_socket
        self._answers: deque[Script] = deque()
        self._arrivals: list[Signal] = []
        self._lock = threading.Lock()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_down = False

    @property
    def address(self) -> str:
        """The address of the server: `host:port`, or the path of its Unix socket."""
        if self._unix_socket is not None:
            return str(self._unix_socket)
        return self.url.removeprefix("http://").removesuffix("/v1")

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    def answer(self, *scripts: Script) -> None:
        """Queues answers, which are sent in order."""
        self._answers.extend(scripts)

    def received(self, index: int = 0, timeout: float = PATIENCE) -> Received:
        """Waits in a thread for a request, and returns it."""
        if not self._arrival(index).wait(timeout):
            raise AssertionError(f"the upstream received {len(self.requests)} requests, not {index + 1}")
        return self.requests[index]

    async def arrives(self, index: int = 0) -> Received:
        """Waits on an event loop for a request, and returns it."""
        if not await self._arrival(index).arrives():
            raise AssertionError(f"the upstream received {len(self.requests)} requests, not {index + 1}")
        return self.requests[index]

    def go_down(self) -> None:
        """Closes every connection, and resets each new one at its first byte.

        `turned_away` has the times of `time.monotonic()`. A reset before the request could be sent is another kind of
        failure, and which one it is would vary.
        """
        self._is_down = True
        self._loop.call_soon_threadsafe(lambda: [task.cancel() for task in self._tasks])

    def come_back(self) -> None:
        """Accepts connections again."""
        self._is_down = False

    def reset(self) -> None:
        """Removes requests and answers: for one server that is shared by many tests."""
        with self._lock:
            self.requests.clear()
            self._arrivals.clear()
            self._answers.clear()
            self.default = hello

    def _arrival(self, index: int) -> Signal:
        with self._lock:
            while len(self._arrivals) <= index:
                self._arrivals.append(Signal())
            return self._arrivals[index]

    async def _start(self) -> None:
        if self._unix_socket is not None:
            self._server = await asyncio.start_unix_server(self._connected, self._unix_socket)
            return
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def _stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_down:
            self.turned_away.append(time.monotonic())
            await reader.read(1)
            _cut(writer, reset=True)
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        number = self.connections
        try:
            ahead = await reader.read(1)
            while ahead:
                ahead = await self._serve(ahead, number, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    async def _serve(
        self, ahead: bytes, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes:
        """Answers a request whose first byte is `ahead`; returns that of the next one, or b"" if the client closed."""
        request = await _read_request(ahead, number, reader)
        script = self._answers.popleft() if self._answers else self.default
        with self._lock:
            self.requests.append(request)
            index = len(self.requests) - 1
        self._arrival(index).set()
        answer = script(request) if callable(script) else script
        steps = (Json(answer) if isinstance(answer, dict) else answer).steps()
        following = asyncio.ensure_future(reader.read(1))
        playing = asyncio.ensure_future(_play(steps, writer))
        try:
            await asyncio.wait({following, playing}, return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                await playing
            try:
                return await following
            except ConnectionError:
                return b""
        finally:
            if following.done() and (following.cancelled() or following.exception() or not following.result()):
                request.closed.set()
            following.cancel()
            playing.cancel()


async def _read_request(ahead: bytes, number: int, reader: asyncio.StreamReader) -> Received:
    head = ahead + await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").strip().split("\r\n")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    method, path, _ = first.split(" ")
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(method, path, headers, body, number)


async def _play(steps: list[Step], writer: asyncio.StreamWriter) -> None:
    for step in steps:
        match step:
            case bytes():
                writer.write(step)
                await writer.drain()
            case str():
                writer.write(step.encode())
                await writer.drain()
            case Signal():
                await asyncio.shield(asyncio.wrap_future(step._future))  # noqa: SLF001 - one module
            case Delay():
                await asyncio.sleep(step.seconds)
            case Stall():
                await asyncio.Event().wait()
            case Cut():
                _cut(writer, reset=step.reset)
                return


def _cut(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    if not reset:
        writer.close()
        return
    linger = (1).to_bytes(4, "little") + bytes(4)
    writer.get_extra_info("socket").setsockopt(1, 13, linger)  # SOL_SOCKET, SO_LINGER: close with RST
    writer.transport.abort()


def _head(status: int, headers: dict[str, str], length: int | None) -> bytes:
    framing = {"Transfer-Encoding": "chunked"} if length is None else {"Content-Length": str(length)}
    lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in (headers | framing).items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data) if data else b""


def event(step: Step) -> bytes:
    """Returns the bytes of one step of a stream."""
    if isinstance(step, dict):
        return b"data: " + json.dumps(step).encode() + b"\n\n"
    assert isinstance(step, bytes | str)
    return step.encode() if isinstance(step, str) else step


DONE = "data: [DONE]\n\n"
USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}


def completion(content: str | None = "Hello there.", **message: Any) -> dict[str, Any]:
    """Returns a complete answer in OpenAI's format; `message` adds fields to the message (`tool_calls=[…]`)."""
    reason = "tool_calls" if "tool_calls" in message else "stop"
    completed = {"role": "assistant", "content": content, "refusal": None, **message}
    return {
        "id": "chatcmpl-scripted",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "scripted-1",
        "choices": [{"index": 0, "message": completed, "logprobs": None, "finish_reason": reason}],
        "usage": USAGE,
        "system_fingerprint": "fp_scripted",
    }


def chunk(
    delta: dict[str, Any] | None = None, finish: str | None = None, index: int = 0, **more: Any
) -> dict[str, Any]:
    """Returns one chunk with one choice; `more` adds fields to the chunk (`usage=…`, `choices=[]`)."""
    choice = {"index": index, "delta": delta or {}, "logprobs": None, "finish_reason": finish}
    return {
        "id": "chatcmpl-scripted",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "scripted-1",
        "choices": [choice],
        **more,
    }


def chunks(*pieces: str) -> list[Step]:
    """Returns the role chunk and one chunk per text, without an end."""
    return [chunk({"role": "assistant", "content": ""}), *(chunk({"content": piece}) for piece in pieces)]


def ending(finish: str = "stop") -> list[Step]:
    """Returns the end of a complete stream: `finish_reason`, usage, `[DONE]`."""
    return [chunk(finish=finish), chunk(choices=[], usage=USAGE), DONE]


def stream(*pieces: str) -> Events:
    """Returns a complete stream of the texts."""
    return Events([*chunks(*pieces), *ending()])


def hello(request: Received) -> Answer:
    """Answers "Hello there.", unary or streaming as requested."""
    if b'"stream":true' in request.raw.replace(b" ", b""):
        return stream("Hello", " there.")
    return Json(completion())
