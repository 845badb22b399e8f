"""The call handlers of the admin services: the origin of a change, and the credentials of callers over the network."""

import hmac

import structlog

from parley.config.admin import AdminConfig
from parley.core.errors import InvalidAdminKey
from parley.core.ports import Origin
from parley.rpc.authentication import CLIENT_ADDRESS
from parley.rpc.call import Call
from parley.rpc.call_handler import Authenticate, CallHandler
from parley.rpc.metadata.challenges import Challenges

_log = structlog.get_logger()


def local_handler(user: str) -> CallHandler:
    """Returns the handler of the calls on the Unix socket, which only its owner and root may open.

    gRPC does not show the user of a caller: the owner of the socket is the origin of every change.

    Args:
        user: The name of the user that owns the socket.
    """
    origin = Origin(f"user:{user}", "socket")

    async def authenticate(call: Call) -> None:
        _set_origin(call, origin)

    return _handler(authenticate)


def remote_handler(config: AdminConfig) -> CallHandler:
    """Returns the handler of the calls on the admin listener."""
    return _handler(AdminCredentials(config).authenticate)


def _handler(authenticate: Authenticate) -> CallHandler:
    return CallHandler(authenticate, Challenges(None), None, set(), behind_edge=True)


class AdminCredentials:
    """Requires an admin key or the certificate of an administrator, and records its name as the origin of changes.

    A key is sent as `authorization: Bearer`. The certificate counts in calls without this header.
    """

    def __init__(self, config: AdminConfig) -> None:
        self._keys = {name: key.encode() for name, key in config.keys.items()}
        self._names = frozenset(config.mtls.names if config.mtls else ())

    async def authenticate(self, call: Call) -> None:
        """Sets the origin of a call. Raises InvalidAdminKey."""
        address = call.metadata.get(CLIENT_ADDRESS, "")  # set by the admin listener
        actor = self._actor(call)
        if actor is None:
            _log.warning("admin call refused", method=call.method, address=address, request_id=call.request_id)
            raise InvalidAdminKey
        _set_origin(call, Origin(actor, address))

    def _actor(self, call: Call) -> str | None:
        authorization = call.metadata.get("authorization")
        if authorization is not None:
            key_name = self._key_name(authorization)
            return None if key_name is None else f"admin-key:{key_name}"
        name = call.metadata.get("parley-client-name", "").partition(",")[0]  # set by the admin listener alone
        return f"admin-certificate:{name}" if name in self._names else None

    def _key_name(self, authorization: str) -> str | None:
        """Returns the name of the key. Compares with every key in constant time."""
        scheme, _, secret = authorization.partition(" ")
        sent = secret.strip().encode(errors="replace") if scheme.lower() == "bearer" else b""
        found = [name for name, key in self._keys.items() if hmac.compare_digest(key, sent)]
        return found[0] if found else None


def _set_origin(call: Call, origin: Origin) -> None:
    call.origin = origin
    call.log_fields |= {"actor": origin.actor, "source": origin.source}
