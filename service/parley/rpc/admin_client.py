"""A client of the `Operations` service for commands, over the admin socket."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from parley.admin.v1.operations_pb2_grpc import OperationsStub

_SECONDS = 10.0


class AdminCallFailed(Exception):
    """The service has refused a call, or cannot be reached; the text says why."""


class OperationsClient:
    """Calls the running service.

    Args:
        socket: The admin socket.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def call(self, method: str, request: Any) -> Any:
        """Calls a method by its name; returns the answer. Raises AdminCallFailed.

        Every call has a connection of its own: the socket is a link, which a reload moves to another worker.
        """
        with grpc.insecure_channel(f"unix:{self._socket.resolve()}") as channel:
            serve: Callable[..., Any] = getattr(OperationsStub(channel), method)
            try:
                return serve(request, timeout=_SECONDS)
            except grpc.RpcError as error:
                raise AdminCallFailed(_text(error, self._socket)) from error


def _text(error: Any, socket: Path) -> str:
    """Returns the text of a failure for the terminal."""
    if error.code() == grpc.StatusCode.UNAVAILABLE:
        return f"nothing serves {socket}; start `parley up`, or name its folder with --state-dir"
    return str(error.details())
