"""Interceptors of the admin services: what a change comes from, and the admin keys of callers over the network."""

import hmac
from collections.abc import Mapping

import grpc
import structlog

from parley.core.errors import InvalidAdminKey
from parley.core.ports import Origin
from parley.rpc.authentication import CLIENT_ADDRESS
from parley.rpc.call import Call
from parley.rpc.interceptors import Authenticate, CallInterceptor
from parley.rpc.metadata.challenges import Challenges

_log = structlog.get_logger()


def local_interceptor(user: str) -> grpc.aio.ServerInterceptor:
    """Returns the interceptor of the Unix socket, which only its owner and root may open.

    gRPC does not show the user of a caller: the owner of the socket is the origin of every change.

    Args:
        user: The name of the user that owns the socket.
    """
    origin = Origin(f"user:{user}", "socket")

    async def authenticate(call: Call) -> None:
        _set_origin(call, origin)

    return _interceptor(authenticate)


def remote_interceptor(keys: Mapping[str, str]) -> grpc.aio.ServerInterceptor:
    """Returns the interceptor of the admin listener.

    Args:
        keys: The admin keys by name.
    """
    return _interceptor(AdminKeys(keys).authenticate)


def _interceptor(authenticate: Authenticate) -> grpc.aio.ServerInterceptor:
    return CallInterceptor(authenticate, Challenges(None), None, set(), behind_edge=True)


class AdminKeys:
    """Requires `authorization: Bearer` with an admin key, and records its name as the origin of changes."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        self._keys = {name: key.encode() for name, key in keys.items()}

    async def authenticate(self, call: Call) -> None:
        """Sets the origin of a call. Raises InvalidAdminKey."""
        address = call.metadata.get(CLIENT_ADDRESS, "")  # set by the admin listener
        key_name = self._name(call.metadata.get("authorization", ""))
        if key_name is None:
            _log.warning("admin call refused", method=call.method, address=address, request_id=call.request_id)
            raise InvalidAdminKey
        _set_origin(call, Origin(f"admin-key:{key_name}", address))

    def _name(self, authorization: str) -> str | None:
        """Returns the name of the key. Compares with every key in constant time."""
        scheme, _, secret = authorization.partition(" ")
        sent = secret.strip().encode(errors="replace") if scheme.lower() == "bearer" else b""
        found = [name for name, key in self._keys.items() if hmac.compare_digest(key, sent)]
        return found[0] if found else None


def _set_origin(call: Call, origin: Origin) -> None:
    call.origin = origin
    call.log_fields |= {"actor": origin.actor, "source": origin.source}
