"""A scripted gRPC server with Parley's API.

Clients connect through a TCP proxy, which counts and cuts connections and detects when a client closes one. See
`ScriptedParley` for its use.
"""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Self

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from tests.contract.tcp_proxy import TcpProxy
from tests.upstream import PATIENCE, Cut, Delay, Signal, Stall

Step = bytes | Message | Signal | Delay | Cut | Stall


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
        self._proxy = TcpProxy(port, own, self._hung_up)

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
