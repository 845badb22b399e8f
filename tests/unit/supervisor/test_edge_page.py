"""The routes of the page at `/` in Envoy's configuration."""

import json
from pathlib import Path
from typing import Any

import pytest

from parley.supervisor import edge_page
from parley.supervisor.edge_settings import SignIn, parse_sign_in
from tests.unit.supervisor.edge_files import added, passed_on, static_resources


@pytest.fixture
def edge_dir(tmp_path: Path) -> Path:
    """A folder with a built page of two files."""
    folder = tmp_path / edge_page.FOLDER
    folder.mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html>")
    (folder / "main-1A.js.gz").write_bytes(b"")
    return tmp_path


def routes(edge_dir: Path, *sign_in: SignIn, grpc_port: int = 50051) -> dict[str, Any]:
    """Returns the routes of the page by path."""
    resources = static_resources()
    edge_page.add(resources, edge_dir, sign_in, grpc_port=grpc_port, docs=True)
    assert ["/x|/|/page/[^?]+"] * 2 == passed_on(resources)
    return {route["match"]["path"]: route for route in added(resources)}


def headers(route: dict[str, Any]) -> dict[str, str]:
    """Returns the headers that a route adds."""
    return {added["header"]["key"]: added["header"]["value"] for added in route["response_headers_to_add"]}


def test_every_file_has_a_route(edge_dir: Path) -> None:
    """The index is asked for again at every visit, other files are kept, and each has its type and its coding."""
    found = routes(edge_dir)
    assert ["/", "/page/main-1A.js", "/page/settings.json"] == list(found)
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
