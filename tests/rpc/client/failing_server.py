"""A gRPC server at a port that fails as a test says."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk

Failure = tuple[grpc.StatusCode, Mapping[str, str | bytes]]
"""A status, and trailing metadata."""


class FailingServer(grpc.GenericRpcHandler):
    """Fails calls.

    Attributes:
        address: Where it listens.
        failures: The failures of the next unary calls; later ones succeed.
        streams: The chunks and the failures of the next streams.
        calls: The metadata of each call.
    """

    def __init__(self) -> None:
        self.failures: list[Failure] = []
        self.streams: list[Sequence[ChatCompletionChunk | Failure]] = []
        self.calls: list[dict[str, Any]] = []
        self._server = grpc.server(ThreadPoolExecutor(2), handlers=[self])
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def service(self, handler_call_details: Any) -> Any:
        """Returns the handler of a method of Parley; there is no health service."""
        if not handler_call_details.method.startswith("/parley."):
            return None
        if "/Stream" in handler_call_details.method:
            return grpc.unary_stream_rpc_method_handler(self._stream)
        return grpc.unary_unary_rpc_method_handler(self._answer)

    def stop(self) -> None:
        """Stops it."""
        self._server.stop(0)

    def _answer(self, _: bytes, context: grpc.ServicerContext) -> bytes:
        self.calls.append(dict(context.invocation_metadata()))
        if self.failures:
            _fail(context, self.failures.pop(0))
        return ChatCompletion(id="answer").SerializeToString()

    def _stream(self, _: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        self.calls.append(dict(context.invocation_metadata()))
        for item in self.streams.pop(0):
            if isinstance(item, ChatCompletionChunk):
                yield item.SerializeToString()
            else:
                _fail(context, item)


def _fail(context: grpc.ServicerContext, failure: Failure) -> None:
    context.set_trailing_metadata(tuple(failure[1].items()))
    context.abort(failure[0], "failed")
