"""The routes of the page at `/` in Envoy's configuration."""

import json
from pathlib import Path
from typing import Any

import pytest

from parley.supervisor import edge_page
from parley.supervisor.edge_settings import SignIn, parse_sign_in

LAST = {"match": {"prefix": "/"}, "direct_response": {"status": 404}}


@pytest.fixture
def edge_dir(tmp_path: Path) -> Path:
    """A folder with a built page of two files."""
    folder = tmp_path / edge_page.FOLDER
    folder.mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html>")
    (folder / "main-1A.js.gz").write_bytes(b"")
    return tmp_path


def routes(edge_dir: Path, *sign_in: SignIn, grpc_port: int = 50051) -> dict[str, Any]:
    """Returns the routes of the second of two hosts by path, with `other ` before that of other methods."""
    shared = [LAST]
    hosts: list[dict[str, Any]] = [{"routes": shared}, {"routes": shared}]
    manager = {"route_config": {"virtual_hosts": hosts}}
    edge_page.add_routes(manager, edge_dir, sign_in, grpc_port=grpc_port, docs=True)
    assert hosts[0] == hosts[1]
    *found, last = hosts[1]["routes"]
    assert LAST == last
    return {f"{'' if 'headers' in route['match'] else 'other '}{route['match']['path']}": route for route in found}


def headers(route: dict[str, Any]) -> dict[str, str]:
    """Returns the headers that a route adds."""
    return {added["header"]["key"]: added["header"]["value"] for added in route["response_headers_to_add"]}


def test_every_file_has_a_route(edge_dir: Path) -> None:
    """The index is asked for again at every visit, other files are kept, and each has its type and its coding."""
    found = routes(edge_dir)
    paths = ["/", "/page/main-1A.js", "/page/settings.json"]
    assert [*paths, *(f"other {path}" for path in paths)] == list(found)
    assert ("text/html; charset=utf-8", "no-cache") == tuple(
        map(headers(found["/"]).get, ("content-type", "cache-control"))
    )
    kept = {
        "content-type": "text/javascript; charset=utf-8",
        "cache-control": "public, max-age=31536000, immutable",
        "content-encoding": "gzip",
    }
    assert kept == headers(found["/page/main-1A.js"])
    assert "page/built/main-1A.js.gz" == found["/page/main-1A.js"]["direct_response"]["body"]["filename"]


def test_other_methods_are_rejected_on_the_same_paths(edge_dir: Path) -> None:
    """Another method than GET and HEAD is rejected on each path, with those that are allowed."""
    for path, route in routes(edge_dir).items():
        if path.startswith("other "):
            assert (405, {"allow": "GET, HEAD"}) == (route["direct_response"]["status"], headers(route))


def test_the_policy_names_this_server_and_the_issuers(edge_dir: Path) -> None:
    """The page may connect to this server and to the origins of the issuers, and load nothing of other servers."""
    assert "connect-src 'self'; " in headers(routes(edge_dir)["/"])["content-security-policy"]
    issuer = SignIn("https://login.example.com/realm", "page", origins=("https://token.example.com",))
    policy = headers(routes(edge_dir, issuer)["/"])["content-security-policy"]
    assert "connect-src 'self' https://login.example.com https://token.example.com; " in policy
    assert "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; " in policy
    assert "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'" in policy


def test_the_settings_tell_how_to_sign_in(edge_dir: Path) -> None:
    """The settings have the port of gRPC, whether there are docs, and each issuer with the client of the page."""
    issuer = SignIn("https://login.example.com", "page", ("openid",), True, (("audience", "a"),))
    body = routes(edge_dir, issuer, grpc_port=7)["/page/settings.json"]["direct_response"]["body"]["inline_string"]
    shown = {"issuer": "https://login.example.com", "client_id": "page", "scopes": ["openid"], "id_token": True}
    assert {"grpc_port": 7, "docs": True, "sign_in": [shown | {"parameters": {"audience": "a"}}]} == json.loads(body)


def test_an_issuer_is_given_with_its_client() -> None:
    """The option has the issuer, an equals sign and the client's id, which may contain further ones."""
    assert SignIn("https://a.example/b", "c=d") == parse_sign_in("https://a.example/b=c=d")
    for text in ("https://a.example", "a.example=page", "https://a.example=", "https://a.example/?x=page"):
        with pytest.raises(ValueError, match=r"write for example https://login\.example\.com=parley-page"):
            parse_sign_in(text)
