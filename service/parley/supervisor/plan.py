"""What the supervisor starts: the result of reading the options and the configuration."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from parley.supervisor.addresses import Address
from parley.supervisor.configuration_metrics import ConfigurationFile
from parley.supervisor.paths import Paths

DEFAULT_METRICS = Address("127.0.0.1", 9464)
"""Where the metrics are by default: the port of OpenTelemetry's exporters for Prometheus."""


@dataclass(frozen=True, slots=True)
class ProcessSettings:
    """What the configuration means for the processes; a reload replaces it.

    Attributes:
        worker: The configuration of a worker, pickled.
        configuration: The configuration as JSON, which shows what a reload changes.
        environment: The environment of a worker.
        models: The settings of each server of llama.cpp, by the name of its backend.
        tls: What a reload cannot change: the settings of TLS, as JSON.
        files: The files that values were read from, with their states then; see `watched_files`.
        file: The file of the configuration.
    """

    worker: bytes = field(repr=False)
    configuration: str = field(repr=False)
    environment: Mapping[str, str] = field(repr=False)
    models: Mapping[str, Mapping[str, str]]
    tls: str
    files: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    file: ConfigurationFile = field(default_factory=ConfigurationFile)


@dataclass(frozen=True, slots=True)
class Plan:
    """What the supervisor starts.

    Attributes:
        settings: The settings of the processes.
        paths: Folders and addresses.
        workers: The number of workers.
        envoy: Envoy's configuration, rendered by `envoy.render_in`; empty without Envoy.
        quiet: Whether to hide the progress of the start.
        reloads: Whether SIGHUP reloads the configuration. Otherwise it stops all processes.
        ready_file: The file that exists while the processes serve; None for none.
        scheme: The scheme of the REST listener.
        metrics: The address of the metrics; None for the default, which another Parley may use.
    """

    settings: ProcessSettings
    paths: Paths
    workers: int
    envoy: str = ""
    quiet: bool = False
    reloads: bool = False
    ready_file: Path | None = None
    scheme: str = "http"
    metrics: Address | None = None
