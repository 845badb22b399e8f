"""Generic handlers of a gRPC server."""

from collections.abc import Sequence
from typing import Any

import grpc

from parley.rpc.call_handler import CallHandler


class GenericHandlers:
    """Takes the handlers of generated code, and adds them as generic handlers only.

    grpc.aio waits for the next call of every registered method and of all others with one `asyncio.wait`, whose cost a
    call grows with the number of methods: with 19 of them it was a tenth of a unary call's CPU time.

    Args:
        server: What the handlers are added to: the server, or the handler of its calls.
    """

    def __init__(self, server: grpc.aio.Server | CallHandler) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Adds handlers, which are found by the path of a call."""
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """Does nothing: the methods are those of the generic handlers."""
