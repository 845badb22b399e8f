"""The routes of the documentation at `/docs/` in Envoy's configuration."""

import json
from pathlib import Path
from typing import Any

import pytest

from parley.supervisor import edge_site
from tests.unit.supervisor.edge_files import added, passed_on, static_resources

PAGE = {"path": "a/", "file": "a/index.html.gz", "type": "text/html; charset=utf-8", "coding": "gzip", "etag": "1"}
IMAGE = {"path": "x.png", "file": "x.png", "type": "image/png", "etag": "2", "hashed": False}
STYLE = {"path": "s.0123abcd.css", "file": "s.0123abcd.css.gz", "type": "text/css", "coding": "gzip", "etag": "3"}
FILES = [
    {"path": "404.html", "file": "404.html.gz", "type": "text/html", "etag": "0", "hashed": False, "scripts": []},
    PAGE | {"hashed": False, "scripts": ["sha256-s"]},
    STYLE | {"hashed": True},
    IMAGE,
]


@pytest.fixture
def routes(tmp_path: Path) -> list[dict[str, Any]]:
    """The routes of a site of four files."""
    (tmp_path / edge_site.FOLDER).mkdir()
    index = {"styles": ["sha256-c"], "files": FILES}
    (tmp_path / edge_site.FOLDER / "index.json").write_text(json.dumps(index))
    resources = static_resources()
    edge_site.add(resources, tmp_path)
    assert ["/x|/docs(/[^?]*)?"] * 2 == passed_on(resources)
    return added(resources)


def headers(route: dict[str, Any]) -> dict[str, str]:
    """Returns the headers that a route adds."""
    return {added["header"]["key"]: added["header"]["value"] for added in route["response_headers_to_add"]}


def test_without_a_built_site_nothing_is_added(tmp_path: Path) -> None:
    """Parley runs without the documentation."""
    resources = static_resources()
    edge_site.add(resources, tmp_path)
    assert static_resources() == resources


def test_each_file_has_its_own_route(routes: list[Any]) -> None:
    """No route but the last, which has the page for unknown paths, matches more than one path."""
    *exact, last = routes
    assert ["/docs/a", "/docs/a/", "/docs/a/"] == [route["match"]["path"] for route in exact[:3]]
    assert [308, 304, 200, 304, 200, 304, 200] == [route["direct_response"]["status"] for route in exact]
    assert "site/a/index.html.gz" == exact[2]["direct_response"]["body"]["filename"]
    assert {"path_separated_prefix": "/docs"} == last["match"]
    assert (404, "site/404.html.gz") == (last["direct_response"]["status"], last["direct_response"]["body"]["filename"])


def test_a_page_is_restricted_and_checked(routes: list[Any]) -> None:
    """The policy of a page permits its own scripts by their hashes; a response without a body repeats it."""
    _, unchanged, page, *_ = routes
    policy = headers(page)["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self' 'sha256-s'; style-src 'self' 'sha256-c'; ")
    assert ("no-cache", '"1"', "gzip") == tuple(map(headers(page).get, ("cache-control", "etag", "content-encoding")))
    assert {"name": "if-none-match", "string_match": {"contains": '"1"'}} == unchanged["match"]["headers"][0]
    assert policy == headers(unchanged)["content-security-policy"]


def test_only_names_with_a_hash_are_kept(routes: list[Any]) -> None:
    """A file whose name changes with its content is kept for a year; an image is sent as it is."""
    *_, style, _, image, _ = routes
    assert "public, max-age=31536000, immutable" == headers(style)["cache-control"]
    assert {"content-type": "image/png", "cache-control": "no-cache", "etag": '"2"'} == headers(image)
