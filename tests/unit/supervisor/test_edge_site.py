"""The routes of the documentation at `/docs/` in Envoy's configuration."""

import json
from pathlib import Path
from typing import Any

import pytest

from parley.supervisor import edge_site

PAGE = {"path": "a/", "file": "a/index.html.gz", "type": "text/html; charset=utf-8", "coding": "gzip", "etag": "1"}
IMAGE = {"path": "x.png", "file": "x.png", "type": "image/png", "etag": "2", "hashed": False}
STYLE = {"path": "s.0123abcd.css", "file": "s.0123abcd.css.gz", "type": "text/css", "coding": "gzip", "etag": "3"}
FILES = [
    {"path": "404.html", "file": "404.html.gz", "type": "text/html", "etag": "0", "hashed": False, "scripts": []},
    PAGE | {"hashed": False, "scripts": ["sha256-s"]},
    STYLE | {"hashed": True},
    IMAGE,
]
LAST = {"match": {"prefix": "/"}}


@pytest.fixture
def config(tmp_path: Path) -> Any:
    """A configuration with two virtual hosts, to which a site of four files was added."""
    (tmp_path / edge_site.FOLDER).mkdir()
    index = {"styles": ["sha256-c"], "files": FILES}
    (tmp_path / edge_site.FOLDER / "index.json").write_text(json.dumps(index))
    return added(tmp_path)


def added(folder: Path) -> Any:
    """Returns a configuration with the site of a folder."""
    hosts = [{"routes": [LAST]}, {"routes": [LAST]}]
    manager = {"typed_config": {"route_config": {"virtual_hosts": hosts}}}
    listener = {"name": "http", "filter_chains": [{"filters": [manager]}]}
    config = {"static_resources": {"listeners": [listener], "clusters": []}}
    edge_site.add(config, folder)
    return config["static_resources"]


def routes(config: Any) -> list[Any]:
    """Returns the routes of the listener of the site."""
    manager = config["listeners"][1]["filter_chains"][0]["filters"][0]["typed_config"]
    [host] = manager["route_config"]["virtual_hosts"]
    found: list[Any] = host["routes"]
    return found


def headers(route: dict[str, Any]) -> dict[str, str]:
    """Returns the headers that a route adds."""
    return {added["header"]["key"]: added["header"]["value"] for added in route["response_headers_to_add"]}


def test_without_a_built_site_nothing_is_added(tmp_path: Path) -> None:
    """Parley runs without the documentation."""
    config = added(tmp_path)
    assert ["http"] == [listener["name"] for listener in config["listeners"]]
    assert [] == config["clusters"]


def test_each_host_passes_the_site_s_paths_on(config: Any) -> None:
    """The route of the site is before the last one; the files are in one listener only."""
    manager = config["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    for host in manager["route_config"]["virtual_hosts"]:
        route, last = host["routes"]
        assert {"path_separated_prefix": "/docs"} == route["match"]
        assert LAST == last
    assert [64] == [one["max_requests"] for one in config["clusters"][0]["circuit_breakers"]["thresholds"]]


def test_each_file_has_its_own_route(config: Any) -> None:
    """No route but the first and the last, which has the page for unknown paths, matches more than one path."""
    first, *exact, last = routes(config)
    assert 405 == first["direct_response"]["status"]
    assert ["/docs/a", "/docs/a/", "/docs/a/"] == [route["match"]["path"] for route in exact[:3]]
    assert [308, 304, 200, 304, 200, 304, 200] == [route["direct_response"]["status"] for route in exact]
    assert "site/a/index.html.gz" == exact[2]["direct_response"]["body"]["filename"]
    assert (404, "site/404.html.gz") == (last["direct_response"]["status"], last["direct_response"]["body"]["filename"])


def test_a_page_is_restricted_and_checked(config: Any) -> None:
    """The policy of a page permits its own scripts by their hashes; a response without a body repeats it."""
    _, _, unchanged, page, *_ = routes(config)
    policy = headers(page)["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self' 'sha256-s'; style-src 'self' 'sha256-c'; ")
    assert ("no-cache", '"1"', "gzip") == tuple(map(headers(page).get, ("cache-control", "etag", "content-encoding")))
    assert {"name": "if-none-match", "string_match": {"contains": '"1"'}} == unchanged["match"]["headers"][0]
    assert policy == headers(unchanged)["content-security-policy"]


def test_only_names_with_a_hash_are_kept(config: Any) -> None:
    """A file whose name changes with its content is kept for a year; an image is sent as it is."""
    *_, style, _, image, _ = routes(config)
    assert "public, max-age=31536000, immutable" == headers(style)["cache-control"]
    assert {"content-type": "image/png", "cache-control": "no-cache", "etag": '"2"'} == headers(image)
