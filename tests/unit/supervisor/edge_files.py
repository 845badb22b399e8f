"""A configuration of Envoy with the listeners of REST and of static files, for tests of what adds files to it."""

from typing import Any


def static_resources() -> dict[str, Any]:
    """Returns the static resources of a configuration; two virtual hosts of REST share their routes."""
    match = {"safe_regex": {"regex": "/x"}}
    routes = [
        {"match": match, "route": {"cluster": "files"}},
        {"match": dict(match), "direct_response": {"status": 405}},
        {"match": {"prefix": "/"}},
    ]
    hosts: dict[str, list[dict[str, Any]]] = {
        "http": [{"routes": routes}, {"routes": routes}],
        "files": [{"routes": []}],
    }
    return {"listeners": [_listener(name, found) for name, found in hosts.items()]}


def _listener(name: str, hosts: list[dict[str, Any]]) -> dict[str, Any]:
    manager = {"typed_config": {"route_config": {"virtual_hosts": hosts}}}
    return {"name": name, "filter_chains": [{"filters": [manager]}]}


def _hosts(resources: dict[str, Any], place: int) -> Any:
    manager = resources["listeners"][place]["filter_chains"][0]["filters"][0]["typed_config"]
    return manager["route_config"]["virtual_hosts"]


def passed_on(resources: dict[str, Any]) -> list[str]:
    """Returns the regular expressions of the paths of files, and of those whose other methods are rejected."""
    return [route["match"]["safe_regex"]["regex"] for route in _hosts(resources, 0)[1]["routes"][:2]]


def added(resources: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the routes of the listener of static files."""
    found: list[dict[str, Any]] = _hosts(resources, 1)[0]["routes"]
    return found
