"""Builds the site: stages the pages in a folder, renders them with Zensical, and writes what Envoy serves."""

import gzip
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from docs.site import output, pages, protos

_HERE = Path(__file__).parent
_ASSETS = {"site_css": "site.css", "site_js": "site.js", "api_css": "api.css", "api_js": "api.js"}
_VENDORED = {"swagger_css": "swagger-ui.css", "swagger_js": "swagger-ui-bundle.js"}
_LICENSES = "swagger-ui-licenses.txt"
_SOURCE_MAP = b"//# sourceMappingURL="
_API = "api.md"
_COLOR = re.compile(r"\x1b\[[\d;]*m")


class BuildError(Exception):
    """The site cannot be built without warnings; the message is that of Zensical."""


def build(target: Path, *, strict: bool = False) -> None:
    """Builds the site into a folder, whose former content is removed.

    Args:
        target: The folder.
        strict: Whether a warning, such as that of a link without a target, is an error.

    Raises:
        BuildError: The site cannot be built.
    """
    with TemporaryDirectory() as folder:
        stage = Path(folder)
        _stage(stage)
        _render(stage, strict=strict)
        output.write(stage / "site", target)


def _stage(stage: Path) -> None:
    """Writes the pages, the theme and the configuration of Zensical into a folder."""
    found = pages.sources()
    for source, name in found.items():
        data = (pages.ROOT / source).read_bytes()
        if name.endswith(".md"):
            data = pages.rewrite(data.decode(), source, found).encode()
        _write(stage / "pages" / name, data)
    references = {name: protos.page(package) for package, (_, name) in protos.PACKAGES.items()}
    references[_API] = (_HERE / "assets" / _API).read_text(encoding="utf-8")
    for name, text in references.items():
        _write(stage / "pages" / name, text.encode())
    for file in (_HERE / "theme").glob("*.html"):
        _write(stage / "theme" / file.name, file.read_bytes())
    names = {*found.values(), *references}
    _write(stage / "zensical.toml", _configuration(names, _stage_assets(stage / "pages")).encode())


def _stage_assets(folder: Path) -> dict[str, str]:
    """Writes the assets with the hash of their content in their names; returns their paths in the site."""
    contents = {key: (name, (_HERE / "assets" / name).read_bytes()) for key, name in _ASSETS.items()}
    for key, name in _VENDORED.items():
        content, _, _ = gzip.decompress((_HERE / "vendor" / f"{name}.gz").read_bytes()).partition(_SOURCE_MAP)
        contents[key] = name, content
    _write(folder / "assets" / _LICENSES, (_HERE / "vendor" / _LICENSES).read_bytes())
    paths = {}
    for key, (name, content) in contents.items():
        stem, _, suffix = name.rpartition(".")
        paths[key] = f"assets/{stem}.{hashlib.sha256(content).hexdigest()[:8]}.{suffix}"
        _write(folder / paths[key], content)
    return paths


def _write(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)


def _configuration(names: set[str], assets: Mapping[str, str]) -> str:
    """Returns zensical.toml with the navigation and the names of the assets. JSON's strings and lists are TOML too."""
    sections = ", ".join(
        f"{{{json.dumps(title)} = {json.dumps(section)}}}" for title, section in pages.navigation(names).items()
    )
    added = f'[project]\nnav = [{sections}]\nextra_css = ["{assets["site_css"]}"]'
    added += f'\nextra_javascript = ["{assets["site_js"]}"]'
    extra = "\n".join(f"{key} = {json.dumps(path)}" for key, path in assets.items())
    text = (_HERE / "zensical.toml").read_text(encoding="utf-8").replace("[project]", added, 1)
    return f"{text}\n[project.extra]\n{extra}\n"


def _render(stage: Path, *, strict: bool) -> None:
    command = [sys.executable, "-m", "zensical", "build", "--config-file", "zensical.toml", "--clean"]
    command += ["--strict"] if strict else []
    done = subprocess.run(command, cwd=stage, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        report, _, _ = _COLOR.sub("", f"{done.stdout}{done.stderr}").partition("Traceback")
        raise BuildError(report)
