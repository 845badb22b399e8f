"""A scripted gRPC server with Parley's API, for the contract suite of backends.

Clients connect through a TCP proxy, which counts and cuts connections and detects when a client closes one. See
`ScriptedParley` for its use.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Self

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from parley.backends.parley.backend import Parley
from parley.core.errors import (
    ContentPolicy,
    ContextLengthExceeded,
    UpstreamError,
    UpstreamMisconfigured,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamUnavailable,
)
from parley.core.ports import Backend
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk, CreateChatCompletionRequest
from parley.v1.message_pb2 import Delta, Usage
from tests.contract.backends import KEY, Mark, Piece
from tests.upstream import PATIENCE, Cut, Delay, Signal, Stall

Step = bytes | Message | Signal | Delay | Cut | Stall

USAGE = Usage(prompt_tokens=9, completion_tokens=3, total_tokens=12)


@dataclass(frozen=True)
class Refusal:
    """The error status with which a call ends. Without a `reason` it has no details, as from any gRPC server."""

    code: grpc.StatusCode
    message: str
    reason: str | None = None
    retry_after: float | None = None
    facts: dict[str, str] = field(default_factory=dict)
    domain: str = "parley"

    def trailing(self) -> tuple[tuple[str, str | bytes], ...]:
        """Returns the google.rpc.Status as trailing metadata."""
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        if self.reason:
            info = error_details_pb2.ErrorInfo(reason=self.reason, domain=self.domain, metadata=self.facts)
            status.details.add().Pack(info)
        if self.retry_after is not None:
            retry = error_details_pb2.RetryInfo()
            retry.retry_delay.FromMilliseconds(int(self.retry_after * 1000))
            status.details.add().Pack(retry)
        return (("grpc-status-details-bin", status.SerializeToString()),) if status.details else ()


@dataclass(frozen=True)
class Answer:
    """The messages of a response, with steps between them; then OK, or the refusal.

    `head` is initial metadata that is sent first.
    """

    steps: Sequence[Step]
    refusal: Refusal | None = None
    head: tuple[tuple[str, str], ...] = ()


@dataclass
class Received:
    """A received call. `closed` is set when the client cancels it or closes the connection.

    `seconds` is the remaining deadline, None without one.
    """

    message: CreateChatCompletionRequest
    metadata: dict[str, Any]
    method: str
    seconds: float | None
    closed: Signal = field(default_factory=Signal)
    answered: bool = False

    def ended(self) -> None:
        """Records the end of the call."""
        if not self.answered:
            self.closed.set()


class ScriptedParley:
    """The server, as a context manager; `healthy` is the status of `parley.v1.ChatCompletions` in its health service.

    with ScriptedParley() as upstream:
        upstream.answer(Answer([message, gate, Cut()]))  # messages, with steps between them
        upstream.answer(Answer([], Refusal(StatusCode.NOT_FOUND, "no such model", "MODEL_NOT_FOUND")))
        ... call upstream.address ...
        assert "target-1" == upstream.requests[0].message.model
    """

    def __init__(self, credentials: grpc.ServerCredentials | None = None, port: int = 0) -> None:
        self.requests: list[Received] = []
        self.health = health.HealthServicer()
        self._answers: deque[Answer] = deque()
        self._arrivals: list[Signal] = []
        self._lock = threading.Lock()
        self._server = grpc.server(ThreadPoolExecutor(16))
        handlers: dict[str, Any] = {
            "CreateChatCompletion": grpc.unary_unary_rpc_method_handler(self._complete),
            "StreamChatCompletion": grpc.unary_stream_rpc_method_handler(self._stream),
        }
        handler = grpc.method_handlers_generic_handler("parley.v1.ChatCompletions", handlers)
        self._server.add_generic_rpc_handlers((handler,))
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        if credentials is None:
            own = self._server.add_insecure_port("127.0.0.1:0")
        else:
            own = self._server.add_secure_port("127.0.0.1:0", credentials)
        self._proxy = _Proxy(port, own, self._hung_up)

    def __enter__(self) -> Self:
        self.set_health(serving=True)
        self._server.start()
        self._proxy.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._proxy.stop()
        self._server.stop(0).wait(PATIENCE)

    @property
    def address(self) -> str:
        """The address on which it listens, `host:port`."""
        return f"127.0.0.1:{self._proxy.port}"

    @property
    def connections(self) -> int:
        """The number of accepted connections."""
        return self._proxy.connections

    @property
    def sent(self) -> bytes:
        """The last bytes sent to clients."""
        return self._proxy.sent

    def set_health(self, *, serving: bool) -> None:
        """Sets the status of the health service."""
        status = health_pb2.HealthCheckResponse
        self.health.set("parley.v1.ChatCompletions", status.SERVING if serving else status.NOT_SERVING)

    def answer(self, *scripts: Answer) -> None:
        """Adds answers, in order."""
        self._answers.extend(scripts)

    async def arrives(self, index: int = 0) -> Received:
        """Waits for a call and returns it."""
        if not await self._arrival(index).arrives():
            raise AssertionError(f"the server received {len(self.requests)} calls, not {index + 1}")
        return self.requests[index]

    def _arrival(self, index: int) -> Signal:
        with self._lock:
            while len(self._arrivals) <= index:
                self._arrivals.append(Signal())
            return self._arrivals[index]

    def _hung_up(self) -> None:
        """Called by the proxy when the client closes its connection."""
        for received in self.requests:
            received.closed.set()

    def _complete(self, data: bytes, context: Any) -> bytes:
        return b"".join(self._stream(data, context, "CreateChatCompletion"))

    def _stream(self, data: bytes, context: Any, method: str = "StreamChatCompletion") -> Iterator[bytes]:
        message, metadata = CreateChatCompletionRequest.FromString(data), dict(context.invocation_metadata())
        seconds = context.time_remaining()
        received = Received(message, metadata, method, seconds if seconds is not None and seconds < 1e8 else None)
        context.add_callback(received.ended)
        with self._lock:
            self.requests.append(received)
            index, answer = len(self.requests) - 1, self._answers.popleft()
        self._arrival(index).set()
        yield from self._play(answer, context)
        received.answered = True
        if answer.refusal:
            context.set_trailing_metadata(answer.refusal.trailing())
            context.abort(answer.refusal.code, answer.refusal.message)

    def _play(self, answer: Answer, context: Any) -> Iterator[bytes]:
        if answer.head:
            context.send_initial_metadata(answer.head)
        over = threading.Event()
        if not context.add_callback(over.set):
            return
        for step in answer.steps:
            match step:
                case bytes():
                    yield step
                case Signal():
                    step.wait()
                case Delay():
                    over.wait(step.seconds)
                case Stall():
                    over.wait(PATIENCE)
                case Cut():
                    self._proxy.cut(reset=step.reset)
                    over.wait(PATIENCE)
                case _:
                    yield step.SerializeToString()


class _Proxy:
    """Forwards bytes between its port and the server's, `target`, in a thread."""

    def __init__(self, port: int, target: int, hung_up: Callable[[], None]) -> None:
        self.connections = 0
        self.sent = b""
        self.port = port
        self._target = target
        self._hung_up = hung_up
        self._clients: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self) -> None:
        """Listens on the given port, or a free one."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(PATIENCE)

    def stop(self) -> None:
        """Closes every connection."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    def cut(self, *, reset: bool) -> None:
        """Closes the clients' connections after the bytes sent; with a TCP reset if `reset` is set."""
        self._loop.call_soon_threadsafe(self._cut, reset)

    def _cut(self, reset: bool) -> None:
        for client in self._clients:
            if reset:
                linger = (1).to_bytes(4, "little") + bytes(4)
                client.get_extra_info("socket").setsockopt(1, 13, linger)  # SOL_SOCKET, SO_LINGER: close with RST
                client.transport.abort()
            else:
                client.close()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._clients.add(writer)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        back = asyncio.ensure_future(_copy(far_reader, writer, self._keep))
        back.add_done_callback(lambda _: writer.close())
        try:
            await _copy(reader, far_writer, lambda _: None)
            self._hung_up()
        except asyncio.CancelledError:
            pass
        finally:
            self._clients.discard(writer)
            back.cancel()
            for end in (writer, far_writer):
                end.transport.abort()

    def _keep(self, data: bytes) -> None:
        self.sent = (self.sent + data)[-8192:]


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, then: Callable[[bytes], None]) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
            then(data)
    except OSError:
        return


def completion(text: str) -> ChatCompletion:
    """Creates a complete response."""
    answer = ChatCompletion(id="chatcmpl-7", object="chat.completion", created=7, model="target-1", usage=USAGE)
    choice = answer.choices.add(index=0, finish_reason="stop")
    choice.message.role = "assistant"
    choice.message.content.string_value = text
    return answer


def chunk(delta: Delta | None = None, finish: str | None = None, **more: Any) -> ChatCompletionChunk:
    """Creates a chunk with one choice, or without choices if there is neither a delta nor a reason."""
    made = ChatCompletionChunk(id="chatcmpl-7", object="chat.completion.chunk", created=7, model="target-1", **more)
    if delta is not None or finish is not None:
        made.choices.add(index=0, delta=delta or Delta(), finish_reason=finish)
    return made


def chunks(*texts: str) -> list[ChatCompletionChunk]:
    """Creates a chunk with the role and one chunk for each text, without an end."""
    deltas = [Delta(role="assistant", content=""), *(Delta(content=text) for text in texts)]
    return [chunk(delta, sequence=index) for index, delta in enumerate(deltas)]


def ending() -> list[ChatCompletionChunk]:
    """Creates the end of a complete stream: finish reason, then usage."""
    return [chunk(finish="stop"), chunk(usage=USAGE)]


GPU = Refusal(grpc.StatusCode.UNAVAILABLE, "the GPU is gone", "UPSTREAM_UNAVAILABLE")
LONG = Refusal(grpc.StatusCode.INVALID_ARGUMENT, "9120 tokens are too many", "CONTEXT_LENGTH_EXCEEDED")

_REFUSALS: dict[type[UpstreamError], tuple[grpc.StatusCode, str]] = {
    UpstreamRejected: (grpc.StatusCode.INVALID_ARGUMENT, "UPSTREAM_REJECTED"),
    ContextLengthExceeded: (grpc.StatusCode.INVALID_ARGUMENT, "CONTEXT_LENGTH_EXCEEDED"),
    ContentPolicy: (grpc.StatusCode.INVALID_ARGUMENT, "CONTENT_POLICY"),
    UpstreamMisconfigured: (grpc.StatusCode.UNAUTHENTICATED, "INVALID_API_KEY"),
    UpstreamRateLimited: (grpc.StatusCode.RESOURCE_EXHAUSTED, "UPSTREAM_RATE_LIMITED"),
    UpstreamUnavailable: (grpc.StatusCode.UNAVAILABLE, "UPSTREAM_UNAVAILABLE"),
}


class ParleyVendor:
    """Another Parley, for the contract suite."""

    name = "parley"

    def serve(self) -> ScriptedParley:
        """Runs a server on a free port."""
        return ScriptedParley()

    def backend(self, address: str) -> Backend:
        """Creates the backend for a server at `host:port`."""
        return Parley(address, KEY)

    def requested_model(self, received: Received) -> str:
        """Returns the model that a call requested."""
        return received.message.model

    def complete_answer(self, text: str) -> Answer:
        """Scripts a complete response with a usage of 9 + 3 tokens."""
        return Answer([completion(text)])

    def stream(self, *pieces: Piece) -> Answer:
        """Scripts a stream: its start and the pieces."""
        steps: list[Step] = [*chunks()]
        for piece in pieces:
            match piece:
                case str():
                    steps.append(chunk(Delta(content=piece)))
                case Mark.END:
                    steps += ending()
                case Mark.FAULT:
                    return Answer(steps, GPU)
                case Mark.TOO_LONG:
                    return Answer(steps, LONG)
                case _:
                    steps.append(piece)
        return Answer(steps)

    def rejection(self, kind: type[UpstreamError], message: str, retry_after: float | None = None) -> Answer:
        """Scripts the rejection that maps to the error `kind`."""
        code, reason = _REFUSALS[kind]
        return Answer([], Refusal(code, message, reason, retry_after))

    def silence(self) -> Answer:
        """Scripts a server that accepts the call and never responds."""
        return Answer([Stall()])

    def connection_closed(self) -> Answer:
        """Scripts a server that accepts the call and closes the connection."""
        return Answer([Cut()])


PARLEY = ParleyVendor()
