"""The site at `/docs/`: Envoy's routes for the files that `python -m docs.site` has built.

No request names a file; the routes are those of the index.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from parley.supervisor import edge_files
from parley.supervisor.edge_files import response

FOLDER = "site"
"""The folder of the built site, in the folder of `envoy.yaml`."""
_PREFIX = "/docs/"
_PATHS = "/docs(/[^?]*)?"
_INDEX = "index.json"
_UNKNOWN = "404.html"
_WORKER = "assets/javascripts/workers/"
_HTML = "text/html"
_POLICY = (
    "default-src 'none'; script-src 'self'{scripts}; style-src 'self'{styles}; img-src 'self' data:; "
    "connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_WORKER_POLICY = "default-src 'none'; connect-src 'self'; frame-ancestors 'none'"


def is_built(edge_dir: Path) -> bool:
    """Returns whether the site has been built in the folder of `envoy.yaml`."""
    return (edge_dir / FOLDER / _INDEX).is_file()


def add(resources: Mapping[str, Any], edge_dir: Path) -> None:
    """Adds the site, if it has been built, to the static resources of a configuration of Envoy.

    Args:
        resources: The static resources.
        edge_dir: The folder of `envoy.yaml`.
    """
    if is_built(edge_dir):
        index = json.loads((edge_dir / FOLDER / _INDEX).read_text(encoding="utf-8"))
        edge_files.add(resources, [_PATHS], _routes(index))


def _routes(index: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields the routes of all files; that of the page for unknown paths is the last one."""
    unknown: list[dict[str, Any]] = []
    for file in index["files"]:
        headers, path = _headers(file, index["styles"]), f"{_PREFIX}{file['path']}"
        body = {"filename": f"{FOLDER}/{file['file']}"}
        if file["file"].startswith(_UNKNOWN):
            route = response(path, 404, headers, body)
            unknown = [route | {"match": {"path_separated_prefix": _PREFIX.rstrip("/")}}]
            continue
        if path.endswith("/"):
            yield response(path.rstrip("/"), 308, {"location": path})
        same = {"name": "if-none-match", "string_match": {"contains": headers["etag"]}}
        # A browser replaces the headers of its copy by those of this response.
        kept = {name: value for name, value in headers.items() if name not in {"content-type", "content-encoding"}}
        yield response(path, 304, kept, match={"headers": [same]})
        yield response(path, 200, headers, body)
    yield from unknown


def _headers(file: Mapping[str, Any], styles: Sequence[str]) -> dict[str, str]:
    """Returns the headers of a file."""
    headers = {
        "content-type": file["type"],
        "cache-control": edge_files.KEPT if file["hashed"] else edge_files.CHECKED,
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
