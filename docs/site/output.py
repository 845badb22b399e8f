"""What Envoy serves: the files of the built site, compressed, and an index with the headers of each."""

import gzip
import hashlib
import json
import re
import shutil
from ast import literal_eval
from base64 import b64encode
from pathlib import Path
from typing import Any

INDEX = "index.json"
NOT_FOUND = "404.html"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
_COMPRESSED = {".png"}
_HASHED = re.compile(r"\.[0-9a-f]{8}\.(min\.)?(css|js)$")
_LICENSE = "assets/javascripts/LICENSE"
_UNUSED = re.compile(r"sitemap\.xml|assets/stylesheets/classic/.*")
# The search has its styles in a string of the bundle, and puts them into the page.
_BUNDLE = "assets/javascripts/bundle.*.js"
_STYLE = re.compile(r"""\("style",\{\},(\w+)\.toString\(\)\)""")
# Scripts that are part of a page; data such as application/json does not run.
_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
_CANONICAL = re.compile(r'\s*<link rel="canonical"[^>]*>')


def write(site: Path, target: Path) -> None:
    """Writes a built site.

    Args:
        site: The folder that Zensical has written.
        target: The folder of the result; its former content is removed. `index.json` lists the files: path below
            `/docs/`, file, content type, entity tag, whether it is compressed, whether its name has a hash, and the
            hashes of a page's scripts. Its `styles` are the hashes of the styles that scripts put into pages.
    """
    draft = target.with_name(f"{target.name}.new")
    shutil.rmtree(draft, ignore_errors=True)
    entries = []
    for file in sorted(path for path in site.rglob("*") if path.is_file()):
        name = file.relative_to(site).as_posix()
        if not _UNUSED.fullmatch(name):
            entries.append(_write_file(name, file.read_bytes(), draft))
    index = {"styles": _bundled_styles(site), "files": entries}
    (draft / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
    former = target.with_name(f"{target.name}.old")
    shutil.rmtree(former, ignore_errors=True)
    if target.exists():
        target.rename(former)  # at once, since another process may be copying it
    draft.rename(target)
    shutil.rmtree(former, ignore_errors=True)


def _write_file(name: str, content: bytes, folder: Path) -> dict[str, Any]:
    """Writes one file, and returns its entry in the index."""
    suffix = Path(name).suffix
    entry: dict[str, Any] = {"path": name, "file": name, "type": _TYPES[".txt" if name == _LICENSE else suffix]}
    if suffix == ".html":
        text = _CANONICAL.sub("", content.decode())
        content = text.encode()
        entry["path"] = name.removesuffix("index.html")
        entry["scripts"] = sorted({source(script) for script in _SCRIPT.findall(text)})
    if suffix not in _COMPRESSED:
        content = gzip.compress(content, 9, mtime=0)
        entry |= {"file": f"{name}.gz", "coding": "gzip"}
    entry["hashed"] = bool(_HASHED.search(name))
    entry["etag"] = hashlib.sha256(content).hexdigest()[:16]
    file = folder / entry["file"]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return entry


def _bundled_styles(site: Path) -> list[str]:
    """Returns the hashes of the styles that the script of the theme puts into a page."""
    [bundle] = site.glob(_BUNDLE)
    script = bundle.read_text(encoding="utf-8")
    names = _STYLE.findall(script)
    texts = [re.findall(rf"\b{name}=('(?:[^'\\]|\\.)*')", script) for name in names]
    return [source(literal_eval(text)) for [text] in texts]


def source(text: str) -> str:
    """Returns the hash of an inline script or style, as a Content-Security-Policy names it."""
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
