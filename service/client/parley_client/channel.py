"""The options and the credentials of a channel."""

from typing import Any, TypeAlias

import grpc

from parley_client.retry import channel_config
from parley_client.version import VERSION

Tls: TypeAlias = bool | grpc.ChannelCredentials | None
"""True for TLS with gRPC's list of authorities, False for none, or credentials. None selects TLS, except for a loopback
address or a Unix socket."""

_LOCAL = ("127.0.0.1:", "localhost:", "[::1]:", "unix:", "unix-abstract:")
_MAX_MESSAGE = 64 * 1024 * 1024
_DEFAULTS: dict[str, Any] = {
    "grpc.primary_user_agent": f"parley-client/{VERSION}",
    "grpc.max_receive_message_length": _MAX_MESSAGE,  # a page of messages may exceed gRPC's 4 MiB
    "grpc.max_send_message_length": _MAX_MESSAGE,
    "grpc.keepalive_time_ms": 30_000,  # a stream may be silent for minutes
    "grpc.keepalive_timeout_ms": 10_000,
    "grpc.keepalive_permit_without_calls": 1,
    "grpc.max_reconnect_backoff_ms": 5_000,  # gRPC waits up to two minutes, longer than all retries of a call
}


def credentials(target: str, tls: Tls) -> grpc.ChannelCredentials | None:
    """Returns the credentials of a channel; None for a channel without TLS."""
    if isinstance(tls, grpc.ChannelCredentials):
        return tls
    return grpc.ssl_channel_credentials() if is_secure(target, tls) else None


def is_secure(target: str, tls: Tls) -> bool:
    """Reports whether a channel has TLS."""
    return not target.startswith(_LOCAL) if tls is None else tls is not False


def tls_credentials(
    *, ca: bytes | None = None, certificate: bytes | None = None, key: bytes | None = None
) -> grpc.ChannelCredentials:
    """Returns credentials for `Client(tls=…)`.

    Args:
        ca: The authorities that the service's certificate is verified with, as PEM; None for gRPC's list.
        certificate: The client's certificate (mTLS), as PEM; None for none.
        key: The private key of the client's certificate, as PEM.
    """
    return grpc.ssl_channel_credentials(ca, key, certificate)


def options(extra: dict[str, Any] | None) -> list[tuple[str, Any]]:
    """Returns the options of a channel: the defaults, the service config, and those of the caller over them."""
    known = _DEFAULTS | {"grpc.service_config": channel_config()} | (extra or {})
    return list(known.items())
