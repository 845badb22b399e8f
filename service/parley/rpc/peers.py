"""The other workers of this Parley, by their admin sockets: one worker answers for all."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import grpc

from parley.admin.v1.operations_pb2_grpc import OperationsStub
from parley.rpc.call import Call

T = TypeVar("T")

_SOCKET = re.compile(r"(worker-\d+)-admin\.sock")
_SECONDS = 2.0  # that a worker may take to answer; one that hangs must not hold up the others
_ONE_WORKER = "parley-one-worker"  # metadata of a call between workers


def is_from_peer(call: Call) -> bool:
    """Returns whether another worker asks for the state of this worker alone."""
    return _ONE_WORKER in call.metadata


class Peers:
    """The other workers. Their sockets are beside that of this worker.

    Args:
        socket: The admin socket of this worker.

    Attributes:
        name: The name of this worker.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self.name = socket.name.removesuffix("-admin.sock")
        self._channels: dict[Path, grpc.aio.Channel] = {}

    async def ask(self, method: str, request: Any, answer: Callable[[], T]) -> tuple[list[T], list[str]]:
        """Calls a method of all workers.

        Args:
            method: The RPC of `Operations`.
            request: Its request.
            answer: Returns the answer of this worker.

        Returns:
            The answers, that of this worker first, and the names of workers that did not answer.
        """
        sockets = await asyncio.to_thread(self._sockets)
        await self._close_except(sockets.values())
        asked = [self._ask(socket, method, request) for socket in sockets.values()]
        own = answer()
        results = dict(zip(sockets, await asyncio.gather(*asked), strict=True))
        answers = [own, *(result for result in results.values() if not isinstance(result, grpc.StatusCode))]
        # A worker that has ended may leave its socket behind: nothing accepts connections there.
        silent = [name for name, result in results.items() if result is grpc.StatusCode.DEADLINE_EXCEEDED]
        return answers, silent

    async def close(self) -> None:
        """Closes the connections."""
        await self._close_except(())

    def _sockets(self) -> dict[str, Path]:
        """Returns the sockets of the other workers by their names."""
        found = {path: _SOCKET.fullmatch(path.name) for path in sorted(self._socket.parent.glob("*-admin.sock"))}
        return {match[1]: path for path, match in found.items() if match and path != self._socket}

    async def _close_except(self, kept: Any) -> None:
        for socket in self._channels.keys() - set(kept):
            await self._channels.pop(socket).close()

    def _ask(self, socket: Path, method: str, request: Any) -> Awaitable[Any]:
        channel = self._channels.get(socket)
        if channel is None:
            channel = self._channels[socket] = grpc.aio.insecure_channel(f"unix:{socket}")
        return _answer(getattr(OperationsStub(channel), method), request)


async def _answer(method: Any, request: Any) -> Any:
    """Returns the answer, or the status of a failure."""
    try:
        return await method(request, metadata=((_ONE_WORKER, "1"),), timeout=_SECONDS)
    except grpc.aio.AioRpcError as error:
        return error.code()
