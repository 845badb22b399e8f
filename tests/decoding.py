"""Decoding of requests that the edge has encoded, for servers of generated handlers."""

from collections.abc import Sequence
from typing import Any

import grpc

from parley.rpc import encoded_requests


class Decoding:
    """Takes the handlers of generated code, and adds them to a server; their requests are decoded as by a worker."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Does nothing: the handlers are those of the methods."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """Adds the handlers of the methods."""
        decoding = {name: _decoding(handler) for name, handler in handlers.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, decoding),))
        self._server.add_registered_method_handlers(service, decoding)


def _decoding(handler: Any) -> Any:
    read = handler.request_deserializer

    def decode(data: bytes) -> Any:
        return read(encoded_requests.decoded(data) if data.startswith(encoded_requests.HEAD) else data)

    return handler._replace(request_deserializer=decode)
