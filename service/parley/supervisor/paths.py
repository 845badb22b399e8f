"""The folders, addresses and settings of one Parley."""

from dataclasses import dataclass
from pathlib import Path

from parley.logs import Level
from parley.supervisor.addresses import Address
from parley.supervisor.edge_settings import DEFAULT_EDGE, EdgeSettings
from parley.supervisor.liveness import DEFAULT_HANG_LIMITS, HangLimits


@dataclass(frozen=True, slots=True)
class ShutdownTimes:
    """How long a shutdown behind Envoy may take, in seconds, besides a few seconds for the ends of the processes.

    Attributes:
        delay: Connections are still accepted, while callers are sent away and load balancers find out.
        grace: Running calls may finish.
    """

    delay: float = 5.0
    grace: float = 15.0


@dataclass(frozen=True, slots=True)
class Paths:
    """Folders and addresses of one Parley.

    Attributes:
        state_dir: The folder of the store.
        run_dir: The folder of Unix sockets and of Envoy's configuration.
        http: The address of the REST listener. None: one worker listens on `grpc`, without Envoy.
        grpc: The address of the gRPC listener.
        edge: Settings of the listeners.
        log_level: The log level of the workers.
        shutdown: The times of a shutdown.
        hang_limits: When a process counts as hanging, and is replaced; None for never.
        behind_edge: Whether all calls of a worker without an Envoy of its own come from another machine's Envoy.
    """

    state_dir: Path
    run_dir: Path
    http: Address | None
    grpc: Address
    edge: EdgeSettings = DEFAULT_EDGE
    log_level: Level = "info"
    shutdown: ShutdownTimes = ShutdownTimes()
    hang_limits: HangLimits | None = DEFAULT_HANG_LIMITS
    behind_edge: bool = False
