"""The static files of the REST listener: the routes of the listener `files`, which has each of them once in memory.

A request never names a file: each path has its own route. The listener has no address; the REST listener passes the
requests of these paths on, see `edge/envoy.yaml`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

HTML = "text/html; charset=utf-8"
KEPT = "public, max-age=31536000, immutable"
"""Caching of a file whose name has the hash of its content."""
CHECKED = "no-cache"
"""Caching of any other file: a browser asks at each use whether it has changed."""
LISTENER = "files"
"""The name of the listener, and of its cluster."""


def add(resources: Mapping[str, Any], paths: Iterable[str], routes: Iterable[dict[str, Any]]) -> None:
    """Adds files to a configuration of Envoy.

    Args:
        resources: The static resources of the configuration.
        paths: Regular expressions of the paths, which the REST listener passes on.
        routes: The routes of the files.
    """
    listeners = {listener["name"]: manager_of(listener) for listener in resources["listeners"]}
    [files] = listeners[LISTENER]["route_config"]["virtual_hosts"]
    files["routes"].extend(routes)
    added = "".join(f"|{path}" for path in paths)
    expressions = {id(one): one for one in _passed_on(listeners["http"])}  # the routes may share one
    for expression in expressions.values():
        expression["regex"] += added


def manager_of(listener: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the connection manager of a listener."""
    manager: dict[str, Any] = listener["filter_chains"][0]["filters"][-1]["typed_config"]
    return manager


def _passed_on(manager: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """Yields the regular expressions of the routes to the files, and of those that reject other methods."""
    for host in manager["route_config"]["virtual_hosts"]:
        for place, route in enumerate(host["routes"]):
            if route.get("route", {}).get("cluster") == LISTENER:
                yield route["match"]["safe_regex"]
                yield host["routes"][place + 1]["match"]["safe_regex"]


def response(
    path: str,
    status: int,
    headers: Mapping[str, str],
    body: Mapping[str, str] | None = None,
    *,
    match: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Returns a route that answers by itself.

    Args:
        path: The path.
        status: The HTTP status.
        headers: The headers of the response.
        body: Envoy's source of the body; None for no body.
        match: Further conditions of the request, or other ones than the path.
    """
    added = [
        {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
        for key, value in headers.items()
    ]
    removed = {} if "location" in headers else {"response_headers_to_remove": ["location"]}  # Envoy adds it to each 3xx
    return {
        "match": {"path": path, **(match or {})},
        "direct_response": {"status": status, **({"body": body} if body else {})},
        "response_headers_to_add": added,
        **(removed if 300 <= status < 400 else {}),  # noqa: PLR2004 - the range of redirections
    }
