"""A guard service: a real gRPC server whose answers a test scripts."""

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, Self, cast

import grpc

from parley.guard.v1.guard_pb2 import Allow, CheckRequest, CheckResponse, Phase, Redact, Refuse
from parley.guard.v1.guard_pb2_grpc import GuardServicer, add_GuardServicer_to_server

ALLOW = CheckResponse(allow=Allow())
Decide = Callable[[CheckRequest], Any]


class GuardServer(GuardServicer):
    """Answers with `decide(request)`: a response, its bytes, a status to abort with, None for no message, or several.

    Attributes:
        requests: The requests so far.
        headers: The metadata of the latest request.
        ended: The number of calls that have ended, also without an answer.
        gate: Set at the end of a test, so that a check that waits for it ends.
    """

    def __init__(self) -> None:
        self.requests: list[CheckRequest] = []
        self.ended = 0
        self.headers: dict[str, str | bytes] = {}
        self.gate = threading.Event()
        self.decide: Decide = allow

    def reset(self) -> None:
        """Allows everything, forgets the requests, and ends checks that still wait."""
        self.gate.set()
        self.gate = threading.Event()
        self.requests.clear()
        self.decide = allow

    def Check(  # type: ignore[override]  # noqa: N802 - the RPC
        self, request: CheckRequest, context: grpc.ServicerContext
    ) -> Iterator[CheckResponse | bytes]:
        """Answers as scripted."""
        self.requests.append(request)
        self.headers = dict(context.invocation_metadata())
        context.add_callback(self._ended)
        answer = self.decide(request)
        if isinstance(answer, grpc.StatusCode):
            context.abort(answer, "words of the guard, of DNS and name resolution")
        if isinstance(answer, Iterator):
            yield from answer
        elif answer is not None:
            assert isinstance(answer, CheckResponse | bytes)
            yield answer

    def _ended(self) -> None:
        self.ended += 1

    def texts(self, phase: Phase.ValueType) -> list[str]:
        """Returns the texts that it has received in a phase."""
        return [unit.text for request in self.requests if request.phase == phase for unit in request.units]


def allow(_: CheckRequest) -> CheckResponse:
    """Allows everything."""
    return ALLOW


def refuse(reason: str = "policy", message: str = "Not here") -> CheckResponse:
    """Returns a refusal."""
    return CheckResponse(refuse=Refuse(reason=reason, message=message))


def redact(*spans: tuple[int, int, int, str]) -> CheckResponse:
    """Returns a redaction of spans: unit, start, end and replacement."""
    made = Redact()
    for unit, start, end, replacement in spans:
        made.spans.add(unit=unit, start=start, end=end, replacement=replacement)
    return CheckResponse(redact=made)


def redacting(word: str, replacement: str = "***") -> Decide:
    """Returns a decision that replaces a word wherever it is."""

    def decide(request: CheckRequest) -> CheckResponse:
        found = [
            (number, start, start + len(word), replacement)
            for number, unit in enumerate(request.units)
            if not unit.history
            for start in range(len(unit.text))
            if unit.text.startswith(word, start)
        ]
        return redact(*found) if found else ALLOW

    return decide


@contextmanager
def guard_server(credentials: grpc.ServerCredentials | None = None) -> Iterator[tuple[GuardServer, str]]:
    """Runs a guard service, with TLS if it has credentials; yields it and its address."""
    guard, server = GuardServer(), grpc.server(ThreadPoolExecutor(8))
    add_GuardServicer_to_server(guard, cast("grpc.Server", _RawServer(server)))
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    yield guard, f"127.0.0.1:{port}"
    guard.gate.set()
    server.stop(0).wait()


class _RawServer:
    """Registers handlers with any number of answers, which may be bytes."""

    def __init__(self, server: grpc.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, _: Any) -> None:
        """Does nothing; the handlers are registered below."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """Registers the handlers."""
        raw = {
            name: grpc.unary_stream_rpc_method_handler(handler.unary_unary, handler.request_deserializer, _serialize)
            for name, handler in handlers.items()
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, raw),))


def _serialize(answer: CheckResponse | bytes) -> bytes:
    return answer if isinstance(answer, bytes) else answer.SerializeToString()


class RawPort:
    """A server that sends the bytes of `answer` to each connection, and closes it."""

    def __init__(self) -> None:
        self.answer = b""
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                connection.sendall(self.answer)
