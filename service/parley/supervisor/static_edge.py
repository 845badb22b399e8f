"""Envoy without a supervisor: its configuration and files for workers on other machines.

The files are those of `parley up`, with another list of workers. Envoy itself follows their addresses and the files of
the certificates; nothing else has to run.
"""

import asyncio
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from parley.supervisor import certificates, edge_page, edge_site, envoy, envoy_admin
from parley.supervisor.addresses import Address, parse_address
from parley.supervisor.edge_settings import EdgeSettings
from parley.supervisor.errors import CommandError

_CONFIG = "envoy.yaml"
_DNS = "dns:"
_FILES = ("transcoder.binpb", "encoded.binpb", "parley.binpb", "openapi.json")
_FOLDERS = ("lua", edge_page.FOLDER)
# The present form of `type: STRICT_DNS`, whose settings of the refresh are deprecated: each address is a worker.
_STRICT_DNS = {
    "name": "envoy.cluster.dns",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.clusters.dns.v3.DnsCluster",
        "dns_lookup_family": "V4_PREFERRED",  # one address of a worker that has both kinds
        "dns_refresh_rate": "1s",  # a new worker gets calls after this time and a health check
        "dns_failure_refresh_rate": {"base_interval": "0.5s", "max_interval": "2s"},
    },
}
_POLL_SECONDS = 0.2
_QUIET_SECONDS = 3.0  # without a request, after which a connection counts as unused


@dataclass(frozen=True, slots=True)
class WorkerList:
    """Where Envoy finds the workers.

    Attributes:
        names: Names and ports; every address of a name is a worker.
        file: A file in the format of `envoy.write_endpoints`, instead of names; Envoy applies its changes.
    """

    names: tuple[Address, ...] = ()
    file: Path | None = None


def parse_workers(texts: Sequence[str]) -> WorkerList:
    """Parses several `dns:HOST:PORT`, or one file. Raises ValueError."""
    names = tuple(parse_address(text.removeprefix(_DNS)) for text in texts if text.startswith(_DNS))
    files = [text for text in texts if not text.startswith(_DNS)]
    if len(files) > 1 or (names and files):
        raise ValueError("give dns:HOST:PORT, several of them, or one file")
    return WorkerList(names, Path(files[0]).absolute() if files else None)


@dataclass(frozen=True, slots=True)
class Listeners:
    """The addresses of Envoy.

    Attributes:
        http: The address of REST.
        grpc: The address of gRPC.
        metrics: The address of Envoy's statistics in Prometheus' format, at /metrics; None for none.
    """

    http: Address
    grpc: Address
    metrics: Address | None = None


def write(
    folder: Path,
    listeners: Listeners,
    workers: WorkerList,
    settings: EdgeSettings,
    admin_workers: WorkerList = WorkerList(),
) -> Path:
    """Writes everything that Envoy reads into a folder, which must be its working directory.

    Args:
        folder: The folder; created if it does not exist.
        listeners: The addresses of Envoy.
        workers: Where Envoy finds the workers.
        settings: Settings of the listeners. The limit of an address has no effect: a supervisor counts connections. Nor
            have operations: each worker only knows those of its own machine.
        admin_workers: Where the admin listener finds the workers.

    Returns:
        The configuration, to be started with `envoy.command`.

    Raises:
        CommandError: The files cannot be written, or the certificates cannot be used.
    """
    folder = folder.absolute()
    config = folder / _CONFIG
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in _FOLDERS:
            shutil.copytree(envoy.edge_dir() / name, folder / name, dirs_exist_ok=True)
        _copy_site(folder, settings)
        for name in _FILES:
            shutil.copy(envoy.edge_dir() / name, folder / name)
        if settings.tls is not None:
            certificates.publish_names(settings.tls, folder)
        text = _render(folder, listeners, workers, admin_workers, settings)
        draft = config.with_name(f"{_CONFIG}.new")
        draft.write_text(text, encoding="utf-8")
        draft.replace(config)
    except OSError as error:
        raise CommandError(f"{folder} cannot be written ({error.strerror or error}); name another folder") from error
    return config


def command(config: Path, shutdown_delay: float, shutdown_grace: float, threads: int) -> list[str]:
    """Returns the command line of the process that runs Envoy; see `edge_process.run` for the arguments."""
    return [
        sys.executable,
        "-m",
        "parley.supervisor.edge_process",
        str(config),
        str(shutdown_delay),
        str(shutdown_grace),
        str(threads),
    ]


def _copy_site(folder: Path, settings: EdgeSettings) -> None:
    """Copies the documentation, if it is served and has been built."""
    built = envoy.edge_dir() / edge_site.FOLDER
    if settings.site and built.is_dir():
        shutil.copytree(built, folder / edge_site.FOLDER, dirs_exist_ok=True)


def _render(
    folder: Path, listeners: Listeners, workers: WorkerList, admin_workers: WorkerList, settings: EdgeSettings
) -> str:
    unlimited = replace(settings, max_connections_per_address=0, operations=False)
    config = json.loads(envoy.render_in(folder, listeners.http, listeners.grpc, unlimited))
    resources = config["static_resources"]
    for cluster in resources["clusters"]:
        if "eds_cluster_config" in cluster:
            _find_workers(cluster, admin_workers if cluster["name"] == "admin_workers" else workers)
    for listener in resources["listeners"]:
        if listener["name"] == "http":
            _apply_liveness(listener)
    if listeners.metrics is not None:
        resources["listeners"].append(_metrics_listener(listeners.metrics))
        resources["clusters"].append(_cluster("admin_interface", [{"pipe": {"path": str(envoy.admin_socket(folder))}}]))
    return json.dumps(config, indent=1)


def _find_workers(cluster: dict[str, Any], workers: WorkerList) -> None:
    """Has a cluster find the workers by their names, or in another file."""
    if workers.file is not None:
        cluster["eds_cluster_config"]["eds_config"]["path_config_source"]["path"] = str(workers.file)
        return
    del cluster["eds_cluster_config"], cluster["type"]
    names = [{"socket_address": {"address": name.host, "port_value": name.port}} for name in workers.names]
    cluster |= _cluster(cluster["name"], names) | {"cluster_type": _STRICT_DNS}


def _cluster(name: str, addresses: Sequence[dict[str, Any]]) -> dict[str, Any]:
    endpoints = [{"endpoint": {"address": address}} for address in addresses]
    return {"name": name, "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}}


def _apply_liveness(listener: dict[str, Any]) -> None:
    """Has `/livez` answer for Envoy alone: an orchestrator must not restart it because workers are down."""
    manager = listener["filter_chains"][0]["filters"][-1]["typed_config"]
    for host in manager["route_config"]["virtual_hosts"]:
        for route in host["routes"]:
            if route["match"].get("path") == "/livez":
                route["direct_response"] = {"status": 200}
                route.pop("typed_per_filter_config", None)


def _metrics_listener(address: Address) -> dict[str, Any]:
    """Returns a listener with one page of the admin interface."""
    kind = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
    route = {"cluster": "admin_interface", "prefix_rewrite": "/stats/prometheus"}
    host = {"name": "metrics", "domains": ["*"], "routes": [{"match": {"path": "/metrics"}, "route": route}]}
    manager = {
        "@type": kind,
        "stat_prefix": "metrics",
        "route_config": {"virtual_hosts": [host]},
        "http_filters": [{"name": "router", "typed_config": {"@type": router}}],
    }
    return {
        "name": "metrics",
        "address": {"socket_address": {"address": address.host, "port_value": address.port}},
        "enable_reuse_port": False,
        "filter_chains": [{"filters": [{"name": "http_connection_manager", "typed_config": manager}]}],
    }


async def drain(folder: Path, delay: float, grace: float) -> None:
    """Sends the callers of an Envoy away and waits for their running calls; then Envoy may be stopped.

    Args:
        folder: The folder of `write`.
        delay: Seconds for which connections are still accepted, until load balancers send callers elsewhere.
        grace: Seconds that running calls may then take to finish.

    Raises:
        CommandError: Envoy does not answer.
    """
    admin = envoy.admin_socket(folder)
    try:
        await envoy_admin.fail_readiness(admin)
        await envoy_admin.drain_listeners(admin)
        await asyncio.sleep(delay)
        await envoy_admin.close_listeners(admin)
        await asyncio.wait_for(_wait_quiet(admin), grace)
    except TimeoutError:
        return
    except OSError as error:
        raise CommandError(f"{error}; is {folder} the folder of a running `parley edge run`?") from error


async def _wait_quiet(admin: Path) -> None:
    """Waits until no call runs, and callers have left or sent nothing for a while."""
    loop = asyncio.get_running_loop()
    last_requests, changed = -1, loop.time()
    while True:
        running = await envoy_admin.running_calls(admin)
        connections, requests = await envoy_admin.traffic(admin)
        if running or requests != last_requests:
            last_requests, changed = requests, loop.time()
        if not running and (not connections or loop.time() - changed >= _QUIET_SECONDS):
            return
        await asyncio.sleep(_POLL_SECONDS)
