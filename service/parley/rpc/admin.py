"""The admin servers of one worker: keys, accounts, usage and the audit log, channelz and reflection."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_channelz.v1 import channelz, channelz_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from parley.admin.v1 import accounts_pb2, audit_pb2, keys_pb2, operations_pb2, usage_pb2
from parley.admin.v1.accounts_pb2_grpc import add_AccountsServicer_to_server
from parley.admin.v1.audit_pb2_grpc import add_AuditLogServicer_to_server
from parley.admin.v1.keys_pb2_grpc import add_KeysServicer_to_server
from parley.admin.v1.operations_pb2_grpc import add_OperationsServicer_to_server
from parley.admin.v1.usage_pb2_grpc import add_UsageServicer_to_server
from parley.config.admin import AdminConfig
from parley.core.administration import Accounts, Keys, Rules, os_user
from parley.core.ports import Store
from parley.rpc.admin_access import local_handler, remote_handler
from parley.rpc.call_handler import CallHandler
from parley.rpc.generic_handlers import GenericHandlers
from parley.rpc.liveness import Liveness
from parley.rpc.operations import Operations
from parley.rpc.peers import Peers
from parley.rpc.reflection import add_reflection
from parley.rpc.server_options import CONNECTION_OPTIONS
from parley.rpc.services.admin_accounts import AccountsServicer
from parley.rpc.services.admin_audit import AuditLogServicer
from parley.rpc.services.admin_keys import KeysServicer
from parley.rpc.services.operations import OperationsServicer
from parley.rpc.services.usage import UsageServicer

_SERVICES = tuple(
    service.full_name
    for module in (keys_pb2, accounts_pb2, audit_pb2, usage_pb2, operations_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
)
_UNIX = "unix:"
_CHANNELZ = tuple(service.full_name for service in channelz_pb2.DESCRIPTOR.services_by_name.values())


@dataclass(frozen=True, slots=True)
class AdminSockets:
    """Where the admin servers listen.

    Attributes:
        local: The Unix socket for its owner.
        remote: The address for Envoy's admin listener: `unix:/path`, or HOST:PORT for an Envoy of another machine. None
            without one.
    """

    local: Path
    remote: str | None = None


@asynccontextmanager
async def admin_servers(  # noqa: PLR0913 - what the services serve
    sockets: AdminSockets,
    store: Store,
    rules: Rules,
    access: AdminConfig,
    operations: Operations,
    *,
    liveness: Liveness,
) -> AsyncIterator[None]:
    """Serves the admin services. Unix sockets have the mode 0600.

    The services are not on the worker's own address, because Envoy forwards every call that it gets there. An Envoy of
    another machine sends each call to any worker, so that it gets the services whose state is in the store, and not
    that of the running service.

    Args:
        sockets: Where to listen. Others may not enter the folder of the sockets: their mode is set after they exist.
        store: Holds keys, accounts and the audit log.
        rules: What keys and accounts may name.
        access: The admin keys and certificates, one of which every call of the remote address must have.
        operations: The running service.
        liveness: Calls the local socket in each second without a health check.

    Raises:
        RuntimeError: An address cannot be bound.
    """
    peers = Peers(sockets.local)
    servicer = OperationsServicer(operations, store, peers)
    local = _server(store, rules, servicer, local_handler(os_user()))
    channelz.add_channelz_servicer(local)
    healthy = health.aio.HealthServicer()
    for service in _SERVICES:
        await healthy.set(service, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(healthy, local)
    add_reflection((*_SERVICES, *_CHANNELZ, health.SERVICE_NAME), local)
    async with AsyncExitStack() as running:
        await running.enter_async_context(_serving(local, f"unix:{sockets.local}"))
        if sockets.remote is not None:
            own = servicer if sockets.remote.startswith(_UNIX) else None
            remote = _server(store, rules, own, remote_handler(access))
            await running.enter_async_context(_serving(remote, sockets.remote))
        operations.start()
        check = asyncio.create_task(liveness.check(sockets.local))
        try:
            yield
        finally:
            check.cancel()
            await operations.stop()
            await peers.close()


def _server(store: Store, rules: Rules, operations: OperationsServicer | None, calls: CallHandler) -> grpc.aio.Server:
    server = grpc.aio.server(options=CONNECTION_OPTIONS)
    server.add_generic_rpc_handlers((calls,))
    handlers: Any = GenericHandlers(calls)
    add_KeysServicer_to_server(KeysServicer(Keys(store, rules)), handlers)
    add_AccountsServicer_to_server(AccountsServicer(Accounts(store, rules), rules), handlers)
    add_AuditLogServicer_to_server(AuditLogServicer(store), handlers)
    add_UsageServicer_to_server(UsageServicer(store), handlers)
    if operations is not None:
        add_OperationsServicer_to_server(operations, handlers)
    return server


@asynccontextmanager
async def _serving(server: grpc.aio.Server, address: str) -> AsyncIterator[None]:
    server.add_insecure_port(address)
    if address.startswith(_UNIX):
        await asyncio.to_thread(Path(address.removeprefix(_UNIX)).chmod, 0o600)
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)
