"""A guard that is a gRPC service."""

import json
import ssl
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from parley.config import ConfigError, Guard
from parley.core.ports import GuardError
from parley.guard.v1.guard_pb2 import DESCRIPTOR, CheckRequest, CheckResponse

_METHOD = f"/{DESCRIPTOR.services_by_name['Guard'].full_name}/Check"
_MAX_RESPONSE = 1024 * 1024  # bytes
_MAX_SPANS = 10_000
_OPTIONS = (
    ("grpc.max_receive_message_length", _MAX_RESPONSE),
    ("grpc.max_send_message_length", -1),  # a request is at most as large as that of the caller
    ("grpc.max_metadata_size", 16384),  # the error of a service must not close the connection
    ("grpc.absolute_max_metadata_size", 24576),
    ("grpc.compression_enabled_algorithms_bitset", 1),  # none: decompressed messages have no size limit
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
    ("grpc.service_config_disable_resolution", 1),  # DNS records must not configure retries
    ("grpc.initial_reconnect_backoff_ms", 100),  # checks fail during the backoff; gRPC's default is up to 2 minutes
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.primary_user_agent", "parley"),
)
_NOT_CONNECTED = ("failed to connect to", "connections to all backends failing", "name resolution", "DNS")
"""Marks of gRPC's own messages about connections; any other message may be the words of the service."""


class RemoteGuard:
    """A service with the interface `parley.guard.v1.Guard`. The constructor requires a running event loop.

    Args:
        config: Its address, certificates and headers.

    Raises:
        ConfigError: A file cannot be read.
    """

    def __init__(self, config: Guard) -> None:
        address = config.address or ""
        if config.tls:
            self._channel = grpc.aio.secure_channel(address, _credentials(config), _OPTIONS)
        else:
            self._channel = grpc.aio.insecure_channel(address, _OPTIONS)
        self._metadata = tuple(config.headers.items())
        # Responses are deserialized here: gRPC would turn a decode error into None.
        self._check: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(_METHOD)

    async def check(self, request: CheckRequest) -> CheckResponse:
        """Returns the decision of the service; see the port."""
        data = request.SerializeToString()
        try:
            response = CheckResponse.FromString(await self._call(data))
        except grpc.aio.AioRpcError as error:
            raise _failure(error) from None
        except DecodeError:
            raise GuardError("invalid_response", "it is not a CheckResponse") from None
        spans = len(response.redact.spans)
        if spans > _MAX_SPANS:
            raise GuardError("invalid_response", f"it has {spans:,} spans; {_MAX_SPANS:,} are allowed")
        return response

    async def _call(self, data: bytes) -> bytes:
        """Returns the response. A call that ends with UNAVAILABLE, as when a service restarts, is repeated once."""
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
    if error.code() is grpc.StatusCode.UNAVAILABLE and any(mark in details for mark in _NOT_CONNECTED):
        return GuardError("unreachable", details[:200])
    return GuardError("error", f"the service answers {error.code().name}")


def _credentials(config: Guard) -> Any:
    default = ssl.get_default_verify_paths().cafile
    authorities = _read("ca", config.ca or (Path(default) if default else None))
    chain = _read("client_certificate", config.client_certificate)
    key = _read("client_key", config.client_key) if config.client_key is not None else chain
    return grpc.ssl_channel_credentials(authorities, key, chain)


def _read(field: str, path: Path | None) -> bytes | None:
    try:
        return path.read_bytes() if path is not None else None
    except OSError as error:
        raise ConfigError(f"{field}: {path} cannot be read: {error.strerror}") from error
