"""Whether the event loop and gRPC of this worker answer calls."""

from collections.abc import Callable
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from parley.core.background import pause

_INTERVAL_SECONDS = 1.0  # between two reports
_TIMEOUT_SECONDS = 1.0  # of a call to the worker's own server


class Liveness:
    """Reports every second that calls are answered.

    The health checks of Envoy show it. In a second without one, the worker calls its own server, which takes both sides
    of a call.

    Args:
        on_alive: Called every second while calls are answered.
    """

    def __init__(self, on_alive: Callable[[], None]) -> None:
        self._on_alive = on_alive
        self._has_answered = False

    def record_answer(self) -> None:
        """Records that a call is answered."""
        self._has_answered = True

    async def check(self, socket: Path) -> None:
        """Reports for ever.

        Args:
            socket: The Unix socket of one of the worker's servers, which has a health service.
        """
        async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            while True:
                if self._has_answered or await _answers(stub):
                    self._has_answered = False
                    self._on_alive()
                    await pause(_INTERVAL_SECONDS)


async def _answers(stub: health_pb2_grpc.HealthStub) -> bool:
    """Calls a server. Returns whether it answers in time; any answer counts."""
    try:
        await stub.Check(health_pb2.HealthCheckRequest(), timeout=_TIMEOUT_SECONDS)
    except grpc.aio.AioRpcError as error:
        return error.code() != grpc.StatusCode.DEADLINE_EXCEEDED
    return True
