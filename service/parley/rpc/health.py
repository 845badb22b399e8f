"""The health service of a worker."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2

SERVICE_NAME = health.SERVICE_NAME
ENCODED = "parley.encoded"
"""The name that Envoy checks. A worker of an earlier version does not have it, and cannot decode what Envoy encodes."""
_WORKER = {"", ENCODED}  # the worker as a whole
_ENDED = "This worker serves no longer; watch again"


class Health(health.aio.HealthServicer):  # type: ignore[misc] # it has no types
    """The health of the services, with `Watch` streams that the server can end.

    Behind Envoy, a stream of health belongs to one worker, while the caller wants the state of the pod. A worker that
    is replaced ends its streams. The caller then watches again at once (gRFC A17), and Envoy selects another worker.

    Args:
        on_check: Called at each `Check`; None for no such call.
    """

    def __init__(self, on_check: Callable[[], None] | None = None) -> None:
        super().__init__()
        self._on_check = on_check
        self._watches_ended = asyncio.Event()

    async def Check(  # noqa: N802 - gRPC's name
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> health_pb2.HealthCheckResponse:
        """Returns the status of a service."""
        if self._on_check is not None:
            self._on_check()
        return await super().Check(request, context)

    async def Watch(  # noqa: N802 - gRPC's name
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> None:
        """Writes the status of a service and its changes, until the caller or the server ends the stream."""
        watching = asyncio.ensure_future(super().Watch(request, context))
        ended = asyncio.ensure_future(self._watches_ended.wait())
        try:
            await asyncio.wait({watching, ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            watching.cancel()
            ended.cancel()
        await context.abort(grpc.StatusCode.UNAVAILABLE, _ENDED)

    async def leave(self) -> None:
        """Permanently sets all services to NOT_SERVING, except the worker as a whole, which Envoys check."""
        self._gracefully_shutting_down = True
        for service in self._server_status.keys() - _WORKER:
            await self._set(service, health_pb2.HealthCheckResponse.NOT_SERVING)

    async def serve(self) -> None:
        """Sets the worker as a whole to SERVING."""
        for name in _WORKER:
            await self.set(name, health_pb2.HealthCheckResponse.SERVING)

    def end_watches(self) -> None:
        """Ends the open `Watch` streams, and each new one, with UNAVAILABLE."""
        self._watches_ended.set()
