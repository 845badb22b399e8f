"""The page at `/`: Envoy's routes for its files, and what it is to know about this Parley.

`make page` builds the files from `edge/page`. Each but `index.html` has the hash of its content in its name, so that
browsers keep it, and is compressed with gzip, whatever a request accepts: Envoy has the files in memory.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from parley.supervisor import edge_files
from parley.supervisor.edge_settings import SignIn

FOLDER = "page/built"
"""The folder of the files, in the folder of `envoy.yaml`."""
_INDEX = "index.html"
_CONSOLE = "/console"
_CONSOLE_PATHS = rf"{_CONSOLE}/settings\.json|/page/[^?]+"
_READ = {"name": ":method", "string_match": {"safe_regex": {"regex": "GET|HEAD"}}}
_PREFIX = "/page/"
_PATHS = ("/", "/page/[^?]+")
_SETTINGS = "/page/settings.json"
_KINDS = {
    ".css": "text/css; charset=utf-8",
    ".html": edge_files.HTML,
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
# Trusted types: no script of the page can turn text into HTML or code.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src {connect}; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
    "trusted-types 'none'"
)


def add(resources: Mapping[str, Any], edge_dir: Path, sign_in: Sequence[SignIn], *, grpc_port: int, docs: bool) -> None:
    """Adds the page to the static resources of a configuration of Envoy.

    Args:
        resources: The static resources.
        edge_dir: The folder of `envoy.yaml`.
        sign_in: The issuers at which the page offers sign-in.
        grpc_port: The port of the gRPC listener, for examples; 0 if it is not known.
        docs: Whether the documentation is at `/docs/`.
    """
    routes = [*_files(edge_dir / FOLDER, _policy(sign_in)), _settings(sign_in, grpc_port, docs=docs)]
    edge_files.add(resources, _PATHS, routes)


def add_console(resources: Mapping[str, Any], edge_dir: Path, *, certificates: bool, operations: bool) -> None:
    """Adds the console to the admin listener, which passes requests for its files on, as the REST listener does.

    The REST listener does not pass on its two paths, and has the other files for the page.

    Args:
        resources: The static resources, with the page.
        edge_dir: The folder of `envoy.yaml`.
        certificates: Whether administrators may have certificates instead of keys.
        operations: Whether the listener serves the operations of the running service.
    """
    index = next(_files(edge_dir / FOLDER, _policy(()), f"{_CONSOLE}/index.html", "console.html"))
    body = {"inline_string": json.dumps({"certificates": certificates, "operations": operations})}
    settings = _route(f"{_CONSOLE}/settings.json", None, body, {"cache-control": edge_files.CHECKED})
    edge_files.add(resources, (), [index, settings])
    [listener] = [one for one in resources["listeners"] if one["name"] == "admin"]
    [host] = edge_files.manager_of(listener)["route_config"]["virtual_hosts"]
    route = {"cluster": edge_files.LISTENER, "timeout": "30s", "idle_timeout": "5s", "flush_timeout": "5s"}
    host["routes"] = [
        {"match": {"path": "/", "headers": [_READ]}, "route": {**route, "prefix_rewrite": index["match"]["path"]}},
        {"match": {"safe_regex": {"regex": _CONSOLE_PATHS}, "headers": [_READ]}, "route": route},
        *host["routes"],
    ]


def _policy(sign_in: Sequence[SignIn]) -> str:
    """Returns the Content-Security-Policy: the page calls this server, and the issuers."""
    origins = sorted({origin for one in sign_in for origin in (_origin(one.issuer), *one.origins)})
    return _POLICY.format(connect=" ".join(["'self'", *origins]))


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _files(folder: Path, policy: str, path: str = "/", index: str = _INDEX) -> Iterator[dict[str, Any]]:
    """Yields the route of each file."""
    shown = {
        "cache-control": edge_files.CHECKED,
        "content-security-policy": policy,
        "cross-origin-opener-policy": "same-origin",
        "permissions-policy": "camera=(), geolocation=(), microphone=()",
    }
    yield _route(path, index, {"filename": f"{FOLDER}/{index}"}, shown)
    for file in sorted(folder.glob("*.gz")):
        headers = {"cache-control": edge_files.KEPT, "content-encoding": "gzip"}
        yield _route(f"{_PREFIX}{file.stem}", file.stem, {"filename": f"{FOLDER}/{file.name}"}, headers)


def _settings(sign_in: Sequence[SignIn], grpc_port: int, *, docs: bool) -> dict[str, Any]:
    """Returns the route of what the page is to know."""
    issuers = [_issuer(one) for one in sign_in]
    body = {"inline_string": json.dumps({"grpc_port": grpc_port, "docs": docs, "sign_in": issuers})}
    return _route(_SETTINGS, None, body, {"cache-control": edge_files.CHECKED})


def _issuer(one: SignIn) -> dict[str, Any]:
    shown = {"issuer": one.issuer, "client_id": one.client_id, "scopes": one.scopes, "id_token": one.id_token}
    return {**shown, "parameters": dict(one.parameters)}


def _route(path: str, name: str | None, body: dict[str, str], headers: Mapping[str, str]) -> dict[str, Any]:
    """Returns the route of one path, with the content type of a file of that name; without a name, that of JSON."""
    kind = _KINDS[Path(name).suffix] if name else "application/json"
    return edge_files.response(path, 200, {"content-type": kind, **headers}, body)
