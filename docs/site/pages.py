"""The sources of the site: pages of the repository, with their links rewritten to pages of the site."""

import posixpath
import re
from collections.abc import Mapping
from pathlib import Path

from docs.site import programs

ROOT = Path(__file__).parents[2]
# Pages outside docs/, by their path in the repository.
_OTHERS = {
    "README.md": "index.md",
    "CHANGELOG.md": "changes.md",
    "edge/kubernetes/README.md": "kubernetes.md",
    "service/client/README.md": "client.md",
    "tests/faults/README.md": "fault-tests.md",
    "tests/load/README.md": "benchmarks.md",
}
SECTIONS: Mapping[str, tuple[str, ...]] = {
    "Start": ("index.md", "first-minutes.md"),
    "Guides": (
        "from-openai.md",
        "from-litellm.md",
        "sessions-in-an-app.md",
        "tools.md",
        "several-regions.md",
        "production.md",
        "page.md",
        "terminal.md",
    ),
    "Recipes": (
        "recipes/call.md",
        "recipes/stream.md",
        "recipes/session.md",
        "recipes/retry.md",
        "recipes/tools.md",
        "recipes/schema.md",
        "recipes/image.md",
        "recipes/receipt.md",
    ),
    "Calling Parley": ("api-and-dialects.md", "sessions.md", "grpc.md", "client.md"),
    "References": ("api.md", "protos.md", "protos-admin.md", "protos-guard.md"),
    "Configuring": (
        "configuration.md",
        "models.md",
        "vendors.md",
        "routing-and-failures.md",
        "limits.md",
        "usage.md",
        "identity.md",
        "guards.md",
        "cache.md",
    ),
    "Operating": (
        "operating.md",
        "deployment.md",
        "kubernetes.md",
        "postgresql.md",
        "scaling.md",
        "many-nodes.md",
        "metrics.md",
        "runbook.md",
        "logs.md",
        "tracing.md",
    ),
    "Developing": ("architecture.md", "contributing.md", "benchmarks.md", "fault-tests.md", "changes.md"),
}
"""The navigation. Pages of docs/ that it does not name are guides."""
_BLOCK = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")


def sources(root: Path = ROOT) -> dict[str, str]:
    """Returns the path of each page and image in the site, by its path in the repository."""
    files = [file for pattern in ("*.md", "recipes/*.md", "images/*") for file in sorted((root / "docs").glob(pattern))]
    own = {file.relative_to(root).as_posix(): file.relative_to(root / "docs").as_posix() for file in files}
    return own | {path: name for path, name in _OTHERS.items() if (root / path).is_file()}


def navigation(names: set[str]) -> dict[str, list[str]]:
    """Returns the pages of each section that has some."""
    placed = {name for section in SECTIONS.values() for name in section}
    guides = sorted(name for name in names - placed if name.endswith(".md"))
    sections = {title: [name for name in section if name in names] for title, section in SECTIONS.items()}
    sections["Guides"] += guides
    return {title: section for title, section in sections.items() if section}


def rewrite(text: str, source: str, known: Mapping[str, str]) -> str:
    """Rewrites the links of a page, and shows its programs and the languages of its blocks.

    Links to files that are not part of the site become plain text.

    Args:
        text: The page.
        source: Its path in the repository.
        known: The result of `sources`.
    """
    text = programs.show(text, (ROOT / source).parent)
    parts, end = [], 0
    for block in _BLOCK.finditer(text):
        parts += [_rewrite_links(text[end : block.start()], source, known), programs.name_language(block[0])]
        end = block.end()
    return "".join([*parts, _rewrite_links(text[end:], source, known)])


def _rewrite_links(text: str, source: str, known: Mapping[str, str]) -> str:
    return _LINK.sub(lambda link: _rewrite_link(link, source, known), text)


def _rewrite_link(link: re.Match[str], source: str, known: Mapping[str, str]) -> str:
    path, separator, anchor = link["target"].partition("#")
    if not path or ":" in path:
        return link[0]
    name = known.get(posixpath.normpath(posixpath.join(posixpath.dirname(source), path)))
    if name is None:
        return link["text"]
    target = posixpath.relpath(name, posixpath.dirname(known[source]) or ".")
    return f"{link['image']}[{link['text']}]({target}{separator}{anchor})"
