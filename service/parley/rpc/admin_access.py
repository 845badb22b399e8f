"""Interceptors of the admin services: what a change comes from, and the admin keys of callers over the network."""

import hmac
from collections.abc import Mapping
from typing import Any

import grpc
import structlog

from parley.core.errors import InvalidAdminKey
from parley.core.ports import Origin
from parley.rpc.authentication import CLIENT_ADDRESS
from parley.rpc.call import current
from parley.rpc.interceptors import (
    Behaviour,
    Context,
    ContextInterceptor,
    DecodeInterceptor,
    ErrorInterceptor,
    Interceptor,
    LogInterceptor,
    MethodHandler,
)
from parley.rpc.metadata.challenges import Challenges

_log = structlog.get_logger()


def local_interceptors(user: str) -> list[grpc.aio.ServerInterceptor]:
    """Returns the interceptors of the Unix socket, which only its owner and root may open.

    Args:
        user: The name of the user that owns the socket.
    """
    return _chain(SocketInterceptor(user))


def remote_interceptors(keys: Mapping[str, str]) -> list[grpc.aio.ServerInterceptor]:
    """Returns the interceptors of the admin listener.

    Args:
        keys: The admin keys by name.
    """
    return _chain(AdminKeyInterceptor(keys))


def _chain(access: Interceptor) -> list[grpc.aio.ServerInterceptor]:
    """Returns the interceptors, the outermost first; see `parley.rpc.interceptors.interceptors`."""
    return [
        ContextInterceptor(set(), behind_edge=True),
        LogInterceptor(),
        ErrorInterceptor(Challenges(None)),
        access,
        DecodeInterceptor(),
    ]


class SocketInterceptor(Interceptor):
    """Records the owner of the socket as the origin of changes: gRPC does not show the user of a caller."""

    def __init__(self, user: str) -> None:
        super().__init__()
        self._origin = Origin(f"user:{user}", "socket")

    def _wrap(self, inner: Behaviour, handler: MethodHandler, name: str) -> Behaviour:
        async def handle(request: Any, context: Context) -> Any:
            _set_origin(self._origin)
            return await inner(request, context)

        return handle


class AdminKeyInterceptor(Interceptor):
    """Requires `authorization: Bearer` with an admin key, and records its name as the origin of changes."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        super().__init__()
        self._keys = {name: key.encode() for name, key in keys.items()}

    def _wrap(self, inner: Behaviour, handler: MethodHandler, name: str) -> Behaviour:
        async def handle(request: Any, context: Context) -> Any:
            metadata = current().metadata
            address = metadata.get(CLIENT_ADDRESS, "")  # set by the admin listener
            key_name = self._name(metadata.get("authorization", ""))
            if key_name is None:
                _log.warning("admin call refused", method=name, address=address, request_id=current().request_id)
                raise InvalidAdminKey
            _set_origin(Origin(f"admin-key:{key_name}", address))
            return await inner(request, context)

        return handle

    def _name(self, authorization: str) -> str | None:
        """Returns the name of the key. Compares with every key in constant time."""
        scheme, _, secret = authorization.partition(" ")
        sent = secret.strip().encode(errors="replace") if scheme.lower() == "bearer" else b""
        found = [name for name, key in self._keys.items() if hmac.compare_digest(key, sent)]
        return found[0] if found else None


def _set_origin(origin: Origin) -> None:
    call = current()
    call.origin = origin
    call.log_fields |= {"actor": origin.actor, "source": origin.source}
