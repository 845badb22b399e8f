"""The admin server of one worker: channelz and reflection on a Unix socket that only its owner may open."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
from grpc_channelz.v1 import channelz, channelz_pb2

from parley.rpc.reflection import add_reflection

_SERVICES = tuple(service.full_name for service in channelz_pb2.DESCRIPTOR.services_by_name.values())


@asynccontextmanager
async def admin_server(socket: Path) -> AsyncIterator[None]:
    """Serves the admin services on a Unix socket with mode 0600.

    The services are not on the worker's own address, because Envoy forwards every call that it gets there.

    Args:
        socket: The socket to create, in a folder that others may not enter: its mode is set after it exists.

    Raises:
        RuntimeError: The socket cannot be bound.
    """
    server = grpc.aio.server()
    channelz.add_channelz_servicer(server)
    add_reflection(_SERVICES, server)
    server.add_insecure_port(f"unix:{socket}")
    await asyncio.to_thread(socket.chmod, 0o600)
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)
