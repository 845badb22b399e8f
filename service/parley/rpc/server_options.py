"""The options of a worker's gRPC server."""

from dataclasses import dataclass

_MESSAGE_BYTES = 32 * 1024 * 1024  # above the edge's limit: 413 there, not 429 here
_METADATA_BYTES = 20480  # the edge's 12 KiB in 100 headers and what it adds

_BEHIND_EDGE = (
    ("grpc.max_receive_message_length", _MESSAGE_BYTES),
    # Between this limit and the one above, grpc-core rejects metadata at random; the edge never sends so much.
    ("grpc.absolute_max_metadata_size", 28672),
    # Otherwise grpc-core answers data, also that of a health check, with a ping that measures the connection.
    ("grpc.http2.bdp_probe", 0),
)
CONNECTION_OPTIONS = (
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),  # Envoy pings every 3 s, the default is 5 minutes
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.so_reuseport", 0),  # two workers on one port are a mistake, and share it unevenly
)
"""The options of each server to which an Envoy connects."""


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """The limits of a server that callers reach without an edge.

    Attributes:
        max_body: The largest message, in bytes.
        max_streams: The most concurrent calls of a connection.
        max_connection_age: Seconds after which a client is requested to open another connection; 0 for no limit.
        reflection: Whether reflection is served.
    """

    max_body: int
    max_streams: int
    max_connection_age: float
    reflection: bool = True


def server_options(limits: ServerLimits | None) -> tuple[tuple[str, int], ...]:
    """Returns the options of a gRPC server: behind the edge, or with these limits of its own."""
    return (
        *(_BEHIND_EDGE if limits is None else _own_limits(limits)),
        ("grpc.max_metadata_size", _METADATA_BYTES),
        *CONNECTION_OPTIONS,
    )


def _own_limits(limits: ServerLimits) -> tuple[tuple[str, int], ...]:
    """Returns the options for the limits. Calls that are running at a connection's age finish: its grace has no end."""
    age = int(limits.max_connection_age * 1000)
    return (
        ("grpc.max_receive_message_length", limits.max_body),
        ("grpc.absolute_max_metadata_size", _METADATA_BYTES),
        ("grpc.max_concurrent_streams", limits.max_streams),
        *((("grpc.max_connection_age_ms", age),) if age else ()),
    )
