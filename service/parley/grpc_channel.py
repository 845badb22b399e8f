"""Channels to other gRPC services: a backend that is another Parley, a guard."""

import json
import ssl
from pathlib import Path
from typing import Protocol

import grpc

from parley.config import ConfigError

_OPTIONS = (
    ("grpc.max_metadata_size", 16384),  # errors are sent in metadata; exceeding the limit would close the connection
    ("grpc.absolute_max_metadata_size", 24576),
    ("grpc.compression_enabled_algorithms_bitset", 1),  # none: decompressed messages have no size limit
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
    ("grpc.service_config_disable_resolution", 1),  # DNS records must not configure retries
    ("grpc.initial_reconnect_backoff_ms", 100),  # calls fail during the backoff; gRPC's default is up to 2 minutes
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.use_local_subchannel_pool", 1),  # services at one address share no connection: closing one leaves the other
    ("grpc.primary_user_agent", "parley"),
)


class _Settings(Protocol):
    """What the configuration says of TLS."""

    @property
    def tls(self) -> bool: ...
    @property
    def ca(self) -> Path | None: ...
    @property
    def client_certificate(self) -> Path | None: ...
    @property
    def client_key(self) -> Path | None: ...


def open_channel(address: str, settings: _Settings, *options: tuple[str, int]) -> grpc.aio.Channel:
    """Returns a channel. Requires a running event loop.

    Args:
        address: The target, such as `dns:///host:port`.
        settings: Whether it uses TLS, and the files of certificates.
        options: Options of gRPC besides those of every channel.

    Raises:
        ConfigError: A file cannot be read.
    """
    if settings.tls:
        return grpc.aio.secure_channel(address, _credentials(settings), (*_OPTIONS, *options))
    return grpc.aio.insecure_channel(address, (*_OPTIONS, *options))


def _credentials(settings: _Settings) -> grpc.ChannelCredentials:
    """Returns the TLS settings. Without authorities, gRPC uses its own list if the system has none."""
    authorities = settings.ca or ssl.get_default_verify_paths().cafile
    certificate = settings.client_certificate
    return grpc.ssl_channel_credentials(
        _read("ca", authorities),
        _read("client_key", settings.client_key or certificate),
        _read("client_certificate", certificate),
    )


def _read(name: str, path: Path | str | None) -> bytes | None:
    try:
        return Path(path).read_bytes() if path else None
    except OSError as error:
        raise ConfigError(f"{name}: {path} cannot be read: {error.strerror}") from error
