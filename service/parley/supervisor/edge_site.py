"""The site at `/docs/`: Envoy's routes for the files that `python -m docs.site` has built.

The files are in the memory of a listener of their own, without an address, to which the listener of REST passes these
requests: each of its virtual hosts would have a copy. No request names a file; the routes are those of the index.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

FOLDER = "site"
"""The folder of the built site, in the folder of `envoy.yaml`."""
_PREFIX = "/docs/"
_INDEX = "index.json"
_UNKNOWN = "404.html"
_WORKER = "assets/javascripts/workers/"
_MAX_FILE = 2**20
_MAX_REQUESTS = 64  # in progress in each thread: a slow client keeps a file in memory
_KEPT = "public, max-age=31536000, immutable"
_CHECKED = "no-cache"
_HTML = "text/html"
_POLICY = (
    "default-src 'none'; script-src 'self'{scripts}; style-src 'self'{styles}; img-src 'self' data:; "
    "connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_WORKER_POLICY = "default-src 'none'; connect-src 'self'; frame-ancestors 'none'"
_FILTERS_OFF = ("arrival", "authorization", "decompressor", "buffer", "ids", "transcoder")
_OFF = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}
_EXTENSIONS = "type.googleapis.com/envoy.extensions"
_HTTP2 = {"initial_stream_window_size": 65536}


def is_built(edge_dir: Path) -> bool:
    """Returns whether the site has been built in the folder of `envoy.yaml`."""
    return (edge_dir / FOLDER / _INDEX).is_file()


def add(config: dict[str, Any], edge_dir: Path) -> None:
    """Adds the site to a configuration of Envoy, if it has been built.

    Args:
        config: The configuration.
        edge_dir: The folder of `envoy.yaml`.
    """
    if not is_built(edge_dir):
        return
    index = edge_dir / FOLDER / _INDEX
    resources = config["static_resources"]
    for listener in resources["listeners"]:
        if listener["name"] == "http":
            _pass_on(listener["filter_chains"][0]["filters"][-1]["typed_config"]["route_config"]["virtual_hosts"])
    resources["listeners"].append(_listener(json.loads(index.read_text(encoding="utf-8"))))
    resources["clusters"].append(_cluster())


def _pass_on(hosts: list[dict[str, Any]]) -> None:
    """Adds the route of the site to each virtual host, before the last one, which is that of unknown paths."""
    route = {
        "match": {"path_separated_prefix": _PREFIX.rstrip("/")},
        "typed_per_filter_config": dict.fromkeys(_FILTERS_OFF, _OFF),
        "route": {"cluster": FOLDER, "timeout": "30s", "retry_policy": {"num_retries": 0}},
    }
    for host in hosts:
        host["routes"] = [*host["routes"][:-1], route, host["routes"][-1]]


def _cluster() -> dict[str, Any]:
    address = {"envoy_internal_address": {"server_listener_name": FOLDER}}
    options = f"{_EXTENSIONS}.upstreams.http.v3.HttpProtocolOptions"
    return {
        "name": FOLDER,
        "load_assignment": {
            "cluster_name": FOLDER,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
        "per_connection_buffer_limit_bytes": 32768,
        "circuit_breakers": {"thresholds": [{"max_requests": _MAX_REQUESTS, "max_pending_requests": _MAX_REQUESTS}]},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": options,
                "explicit_http_config": {"http2_protocol_options": _HTTP2},
            }
        },
    }


def _listener(index: Mapping[str, Any]) -> dict[str, Any]:
    manager = {
        "@type": f"{_EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": FOLDER,
        "codec_type": "HTTP2",
        "skip_xff_append": True,
        "server_header_transformation": "PASS_THROUGH",
        "generate_request_id": False,
        "http2_protocol_options": _HTTP2,
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{_EXTENSIONS}.filters.http.router.v3.Router"}}],
        "route_config": {
            "max_direct_response_body_size_bytes": _MAX_FILE,
            "virtual_hosts": [{"name": FOLDER, "domains": ["*"], "routes": list(_routes(index))}],
        },
    }
    return {
        "name": FOLDER,
        "internal_listener": {},
        "per_connection_buffer_limit_bytes": 32768,
        "filter_chains": [{"filters": [{"name": "http_connection_manager", "typed_config": manager}]}],
    }


def _routes(index: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields the routes of all files; that of the page for unknown paths is the last one."""
    read = {"name": ":method", "string_match": {"safe_regex": {"regex": "GET|HEAD"}}, "invert_match": True}
    yield _response({"prefix": "/", "headers": [read]}, 405, {"allow": "GET, HEAD"})
    for file in index["files"]:
        headers, path = _headers(file, index["styles"]), f"{_PREFIX}{file['path']}"
        if file["file"].startswith(f"{_UNKNOWN}"):
            unknown = _response({"prefix": "/"}, 404, headers, file["file"])
            continue
        if path.endswith("/"):
            yield _response({"path": path.rstrip("/")}, 308, {"location": path})
        same = {"name": "if-none-match", "string_match": {"contains": headers["etag"]}}
        # A browser replaces the headers of its copy by those of this response.
        kept = {name: value for name, value in headers.items() if name not in {"content-type", "content-encoding"}}
        yield _response({"path": path, "headers": [same]}, 304, kept)
        yield _response({"path": path}, 200, headers, file["file"])
    yield unknown


def _headers(file: Mapping[str, Any], styles: Sequence[str]) -> dict[str, str]:
    """Returns the headers of a file."""
    headers = {
        "content-type": file["type"],
        "cache-control": _KEPT if file["hashed"] else _CHECKED,
        "etag": f'"{file["etag"]}"',
    }
    if "coding" in file:
        headers["content-encoding"] = file["coding"]
    if file["type"].startswith(_HTML):
        headers["content-security-policy"] = _POLICY.format(
            scripts="".join(f" '{one}'" for one in file["scripts"]), styles="".join(f" '{one}'" for one in styles)
        )
        headers["cross-origin-opener-policy"] = "same-origin"
    elif file["path"].startswith(_WORKER):
        headers["content-security-policy"] = _WORKER_POLICY
    return headers


def _response(match: dict[str, Any], status: int, headers: Mapping[str, str], file: str = "") -> dict[str, Any]:
    """Returns a route that answers with a file, or without a body."""
    response: dict[str, Any] = {"status": status}
    if file:
        response["body"] = {"filename": f"{FOLDER}/{file}"}
    added = [
        {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
        for key, value in headers.items()
    ]
    removed = [] if "location" in headers else ["location"]  # Envoy adds it to each 3xx
    return {
        "match": match,
        "direct_response": response,
        "response_headers_to_add": added,
        "response_headers_to_remove": removed,
    }
