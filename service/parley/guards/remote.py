"""A guard that is a gRPC service."""

import grpc
from google.protobuf.message import DecodeError

from parley.config import Guard
from parley.core.ports import GuardError
from parley.grpc_channel import open_channel
from parley.guard.v1.guard_pb2 import DESCRIPTOR, CheckRequest, CheckResponse

_METHOD = f"/{DESCRIPTOR.services_by_name['Guard'].full_name}/Check"
_MAX_RESPONSE = 1024 * 1024  # bytes
_MAX_SPANS = 10_000
_OPTIONS = (
    ("grpc.max_receive_message_length", _MAX_RESPONSE),
    ("grpc.max_send_message_length", -1),  # a request is at most as large as that of the caller
)
_NOT_CONNECTED = (
    "failed to connect to",
    "connections to all backends failing",
    "errors resolving",
    "DNS resolution failed",
)
"""Beginnings of gRPC's own messages about connections; any other message may be the words of the service."""


class RemoteGuard:
    """A service with the interface `parley.guard.v1.Guard`. The constructor requires a running event loop.

    Args:
        config: Its address, certificates and headers.

    Raises:
        ConfigError: A file cannot be read.
    """

    is_remote = True

    def __init__(self, config: Guard) -> None:
        address = config.address or ""
        self._channel = open_channel(address, config, *_OPTIONS)
        self._metadata = tuple(config.headers.items())
        # Responses are deserialized here: gRPC would turn a decode error into None.
        self._check: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(_METHOD)

    async def check(self, request: CheckRequest) -> CheckResponse:
        """Returns the decision of the service; see the port."""
        data = (
            request.SerializeToString()
        )  # not in the thread of large calls: waiting there would count as the guard's time
        try:
            found = await self._call(data)
            if found is None:
                raise GuardError("invalid_response", "it has no message")
            response = CheckResponse.FromString(found)
        except grpc.aio.AioRpcError as error:
            raise _failure(error) from None
        except DecodeError:
            raise GuardError("invalid_response", "it is not a CheckResponse") from None
        spans = len(response.redact.spans)
        if spans > _MAX_SPANS:
            raise GuardError("invalid_response", f"it has {spans:,} spans; {_MAX_SPANS:,} are allowed")
        return response

    async def _call(self, data: bytes) -> bytes | None:
        """Returns the response; None for a success without one.

        A call that ends with UNAVAILABLE, as when a service restarts, is repeated once.
        """
        try:
            return await self._check(data, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
        return await self._check(data, metadata=self._metadata)

    async def close(self) -> None:
        """Closes the connection."""
        await self._channel.close()


def _failure(error: grpc.aio.AioRpcError) -> GuardError:
    details = error.details() or ""
    if error.code() is grpc.StatusCode.UNAVAILABLE and details.startswith(_NOT_CONNECTED):
        return GuardError("unreachable", details[:200])
    return GuardError("error", f"the service answers {error.code().name}")
