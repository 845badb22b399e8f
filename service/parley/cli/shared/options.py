"""Options that several commands share, each with its `PARLEY_…` environment variable."""

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from parley.config.types import Duration
from parley.config.validation import ValidationError, validated
from parley.logs import Level
from parley.supervisor.addresses import Address, parse_address
from parley.supervisor.errors import CommandError
from parley.supervisor.plan import DEFAULT_METRICS


def _to_address(_type: object, tokens: object) -> Address:
    """Converts an address for cyclopts."""
    return parse_address(tokens[0].value)  # type: ignore[index]


def default_workers() -> int:
    """Returns the number of cores that this process may use, at most 4."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 4)


ConfigOption = Annotated[
    Path | None,
    Parameter(
        name="--config",
        env_var="PARLEY_CONFIG",
        help="YAML file with backends and models. Default: the built-in model.",
    ),
]
StateDirOption = Annotated[
    Path | None,
    Parameter(
        name="--state-dir",
        env_var="PARLEY_STATE_DIR",
        help="Folder for sessions and keys. Default: ./.parley if it exists, else ~/.local/state/parley.",
    ),
]
ADDRESS_PARAMETER = Parameter(converter=_to_address, show_default=str, n_tokens=1, accepts_keys=False)
_REST_HELP = "REST address, HOST:PORT; port 0 picks a free one."
_GRPC_HELP = "gRPC address, HOST:PORT; port 0 picks a free one."
HttpOption = Annotated[Address, ADDRESS_PARAMETER, Parameter(name="--http", env_var="PARLEY_HTTP", help=_REST_HELP)]
GrpcOption = Annotated[Address, ADDRESS_PARAMETER, Parameter(name="--grpc", env_var="PARLEY_GRPC", help=_GRPC_HELP)]
AdminOption = Annotated[
    Address | None,
    ADDRESS_PARAMETER,
    Parameter(
        name="--admin",
        env_var="PARLEY_ADMIN",
        help="gRPC address of the admin API, HOST:PORT; needs an admin key. Default: only the Unix socket admin.sock "
        "in the state folder.",
    ),
]
AdminKeyFileOption = Annotated[
    Path | None,
    Parameter(
        name="--admin-key-file",
        env_var="PARLEY_ADMIN_KEY_FILE",
        help="File with an admin key for --admin, beside those of `admin.keys` in the configuration.",
    ),
]
ListenOption = Annotated[
    Address, ADDRESS_PARAMETER, Parameter(name="--listen", env_var="PARLEY_LISTEN", help=_GRPC_HELP)
]
LogLevelOption = Annotated[
    Level,
    Parameter(name="--log-level", env_var="PARLEY_LOG_LEVEL", help="The lowest level of log lines that are shown."),
]
QuietOption = Annotated[
    bool,
    Parameter(
        name="--quiet",
        env_var="PARLEY_QUIET",
        negative=(),
        help="Show only warnings and errors, and no progress.",
    ),
]
WaitForStoreOption = Annotated[
    str,
    Parameter(
        name="--wait-for-store",
        env_var="PARLEY_WAIT_FOR_STORE",
        help="How long to wait at startup for an unreachable database server: 30s, 5m. Calls get 503 meanwhile. "
        "0 exits at once.",
    ),
]
ShutdownDelayOption = Annotated[
    str,
    Parameter(
        name="--shutdown-delay",
        env_var="PARLEY_SHUTDOWN_DELAY",
        help="How long connections are still accepted after SIGTERM, until load balancers send callers elsewhere; "
        "0 for no load balancer. Ctrl-C skips it.",
    ),
]
ShutdownGraceOption = Annotated[
    str,
    Parameter(
        name="--shutdown-grace",
        env_var="PARLEY_SHUTDOWN_GRACE",
        help="How long running calls may then take to finish. The rest ends with an error.",
    ),
]
HangTimeoutOption = Annotated[
    str,
    Parameter(
        name="--hang-timeout",
        env_var="PARLEY_HANG_TIMEOUT",
        help="A process that leaves its liveness checks unanswered for this time is killed and replaced: 5s, 1m. 0 for "
        "never, for example while a debugger stops it.",
    ),
]
BehindEdgeOption = Annotated[
    bool,
    Parameter(
        name="--behind-edge",
        env_var="PARLEY_BEHIND_EDGE",
        negative=(),
        help="All calls come from an Envoy of `parley edge`: it limits them, and the worker trusts the client's "
        "address and certificate that it names. Nothing else may reach the address.",
    ),
]
InsecureOption = Annotated[
    bool,
    Parameter(
        name="--insecure",
        env_var="PARLEY_INSECURE",
        negative=(),
        help="Listen without TLS on addresses that other machines reach. API keys can be read on the way.",
    ),
]
ForceOption = Annotated[bool, Parameter(name="--force", negative=(), help="Replace the file if it exists.")]
JsonOption = Annotated[bool, Parameter(name="--json", negative=(), help="Print JSON.")]
MetricsOption = Annotated[
    Address | None,
    ADDRESS_PARAMETER,
    Parameter(
        name="--metrics",
        env_var="PARLEY_METRICS",
        help=f"Address of the metrics for Prometheus, HOST:PORT; port 0 picks a free one. Default: {DEFAULT_METRICS}; "
        "if that is in use, a warning and no metrics.",
    ),
]
ReadyFileOption = Annotated[
    Path | None,
    Parameter(
        name="--ready-file",
        env_var="PARLEY_READY_FILE",
        help="JSON file with the addresses; it exists while Parley serves.",
    ),
]


def seconds(text: str, option: str) -> float:
    """Parses a duration such as `30s`, or `0`; returns seconds. Raises CommandError."""
    try:
        return 0.0 if text.strip() == "0" else validated(Duration, text)
    except ValidationError as error:
        raise CommandError(f"{option}: {text!r} is not a duration; write 0, or for example 500ms, 30s, 5m") from error


def log_level(chosen: Level, quiet: bool) -> Level:
    """Returns the log level: `--quiet` raises it to `warning` at least."""
    return "warning" if quiet and chosen != "error" else chosen
