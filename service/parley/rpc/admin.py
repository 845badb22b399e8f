"""The admin server of one worker: channelz and reflection on a Unix socket that only its owner may open."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
from grpc_channelz.v1 import channelz, channelz_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from parley.rpc.reflection import add_reflection

_SERVICES = tuple(service.full_name for service in channelz_pb2.DESCRIPTOR.services_by_name.values())

_ALIVE_SECONDS = 1.0  # between two calls to the worker's own server, and the longest time of one


@asynccontextmanager
async def admin_server(socket: Path, on_alive: Callable[[], None]) -> AsyncIterator[None]:
    """Serves the admin services on a Unix socket with mode 0600.

    The services are not on the worker's own address, because Envoy forwards every call that it gets there.

    Args:
        socket: The socket to create, in a folder that others may not enter: its mode is set after it exists.
        on_alive: Called every second while calls are answered.

    Raises:
        RuntimeError: The socket cannot be bound.
    """
    server = grpc.aio.server()
    channelz.add_channelz_servicer(server)
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    add_reflection((*_SERVICES, health.SERVICE_NAME), server)
    server.add_insecure_port(f"unix:{socket}")
    await asyncio.to_thread(socket.chmod, 0o600)
    await server.start()
    check = asyncio.create_task(_check_alive(socket, on_alive))
    try:
        yield
    finally:
        check.cancel()
        await server.stop(None)


async def _check_alive(socket: Path, on_alive: Callable[[], None]) -> None:
    """Calls this worker's own server periodically. Any answer shows that the event loop and gRPC are alive."""
    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        while True:
            try:
                await stub.Check(health_pb2.HealthCheckRequest(), timeout=_ALIVE_SECONDS)
            except grpc.aio.AioRpcError as error:
                if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                    continue
            on_alive()
            await asyncio.sleep(_ALIVE_SECONDS)
