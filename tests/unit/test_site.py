"""The builder of the site at /docs/: links, navigation, references, and what it writes for Envoy."""

import gzip
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urldefrag, urljoin, urlsplit

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from docs.site import output, pages, programs, protos
from docs.site.build import build

BUDGET = 2_000_000  # bytes: Envoy keeps the files in memory
LARGEST = 2**20  # the limit of Envoy for one file
BASE = "http://site/docs/"
KNOWN = {
    "README.md": "index.md",
    "docs/a.md": "a.md",
    "docs/images/x.png": "images/x.png",
    "tests/load/README.md": "l.md",
}


@pytest.mark.parametrize(
    ("source", "text", "expected"),
    [
        ("README.md", "[a](docs/a.md#part)", "[a](a.md#part)"),
        ("docs/a.md", "[start](../README.md), ![x](images/x.png)", "[start](index.md), ![x](images/x.png)"),
        ("docs/a.md", "[`load`](../tests/load/README.md)", "[`load`](l.md)"),
        ("docs/a.md", "[`chat.py`](../service/chat.py) and [`x`](#part)", "`chat.py` and [`x`](#part)"),
        ("docs/a.md", "[e](https://example.com/a.md)", "[e](https://example.com/a.md)"),
        (
            "docs/a.md",
            "```sh\n[a](../README.md)\n```\n[a](../README.md)",
            "```sh\n[a](../README.md)\n```\n[a](index.md)",
        ),
    ],
)
def test_links_lead_to_pages_of_the_site(source: str, text: str, expected: str) -> None:
    """Links of the repository become links of the site; those to files that are not part of it become text."""
    assert expected == pages.rewrite(text, source, KNOWN)


def test_every_page_is_in_the_navigation() -> None:
    """Each page has one place; a page that no section names is a guide."""
    names = {name for name in pages.sources().values() if name.endswith(".md")} | {"new.md"}
    sections = pages.navigation(names)
    assert sorted(names) == sorted(name for section in sections.values() for name in section)
    assert "new.md" in sections["Guides"]


@pytest.mark.parametrize("package", protos.PACKAGES)
def test_the_grpc_reference_has_every_element(package: str) -> None:
    """Each service, method, message, field, enum and value of a package is in its reference, with its comment."""
    page = protos.page(package)
    files = FileDescriptorSet.FromString(protos.DESCRIPTOR.read_bytes()).file
    for file in (file for file in files if file.package == package):
        for service in file.service:
            assert all(f"### {service.name}.{method.name}\n" in page for method in service.method)
        for message in file.message_type:
            assert f"### {message.name}\n" in page
            assert all(f"| `{field.name}` = {field.number} |" in page for field in message.field)
        for enum in file.enum_type:
            assert all(f"| `{value.name}` = {value.number} |" in page for value in enum.value)
    assert not re.search(r"\|\s*\|$", page, re.MULTILINE), "an element has no comment"


def test_every_package_has_a_reference() -> None:
    """Each package of this repository has a page."""
    files = FileDescriptorSet.FromString(protos.DESCRIPTOR.read_bytes()).file
    assert {file.package for file in files if file.package.startswith("parley.")} == set(protos.PACKAGES)


def test_programs_of_files_become_tabs(tmp_path: Path) -> None:
    """A list of links to programs shows them; another list, and a link within a sentence, stay as they are."""
    (tmp_path / "ask.py").write_text('"""Asks."""\n\nprint(1)\n')
    (tmp_path / "ask.sh").write_text("echo 1\n")
    kept = "- [Python](ask.py), and more\n\n- [a](b.md)\n"
    page = programs.show(f"Text.\n\n- [Python](ask.py)\n- [curl](ask.sh)\n\n{kept}", tmp_path)
    python = '=== "Python"\n\n    ```python\n    """Asks."""\n\n    print(1)\n    ```\n\n'
    assert f'Text.\n\n{python}=== "curl"\n\n    ```bash\n    echo 1\n    ```\n\n\n{kept}' == page


@pytest.mark.parametrize(
    ("block", "language"), [("```\n$ ls\nfile\n```", "console"), ("```\na $ b\n```", "text"), ("```sh\nls\n```", "sh")]
)
def test_blocks_without_a_language_get_one(block: str, language: str) -> None:
    """A block with a prompt is of a terminal, another one is plain text; a named language stays."""
    assert programs.name_language(block).startswith(f"```{language}\n")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of this repository, built without a warning."""
    folder = tmp_path_factory.mktemp("site") / "site"
    build(folder, strict=True)
    return folder


def entries(site: Path) -> dict[str, dict[str, Any]]:
    """Returns the files of a site by their path below /docs/."""
    return {file["path"]: file for file in json.loads((site / output.INDEX).read_text())["files"]}


def content(site: Path, entry: dict[str, Any]) -> bytes:
    """Returns a file as browsers see it."""
    data = (site / entry["file"]).read_bytes()
    return gzip.decompress(data) if entry.get("coding") else data


class Page(HTMLParser):
    """The references, anchors and scripts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.styled: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.anchors |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif tag in {"link", "script", "img", "iframe"} and (url := found.get("href") or found.get("src")):
            self.loaded.append(url)
        if "style" in found or tag == "style":
            self.styled.append(self.get_starttag_text() or "")


@pytest.fixture(scope="module")
def html(site: Path) -> dict[str, Page]:
    """The pages of the site, by their path below /docs/."""
    found = {path: entry for path, entry in entries(site).items() if entry["type"].startswith("text/html")}
    return {path: Page(content(site, entry).decode()) for path, entry in found.items()}


def targets(path: str, urls: list[str]) -> Iterator[tuple[str, str]]:
    """Yields the path below /docs/ and the anchor of each reference to the site."""
    for url in urls:
        place, anchor = urldefrag(urljoin(f"{BASE}{path}", url))
        if urlsplit(place).netloc == urlsplit(BASE).netloc and place.startswith(BASE):
            yield place.removeprefix(BASE), anchor


def test_no_link_of_the_site_is_broken(site: Path, html: dict[str, Page]) -> None:
    """Each link to a page has a page, and its anchor; each script, style and image of a page is there."""
    assert len(html) > 20
    paths = set(entries(site))
    for path, page in html.items():
        assert set() == {target for target, _ in targets(path, [*page.links, *page.loaded])} - paths, path
        broken = [
            f"{target}#{anchor}"
            for target, anchor in targets(path, page.links)
            if anchor and target in html and anchor not in html[target].anchors
        ]
        assert [] == broken, path


def test_the_site_loads_nothing_of_other_servers(html: dict[str, Page]) -> None:
    """Pages load scripts, styles and images of this server only, and have no styles that the policy forbids."""
    for path, page in html.items():
        assert [] == [url for url in page.loaded if urlsplit(urljoin(f"{BASE}{path}", url)).netloc != "site"]
        assert [] == page.styled


def test_the_index_has_what_browsers_need(site: Path) -> None:
    """The index lists each file with its type, and the hashes of all scripts of a page."""
    found = entries(site)
    assert {file["file"] for file in found.values()} | {output.INDEX} == {
        path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()
    }
    for entry in found.values():
        if entry["type"].startswith("text/html"):
            scripts = re.findall(r"<script>(.*?)</script>", content(site, entry).decode(), re.DOTALL)
            assert sorted({output.source(script) for script in scripts}) == entry["scripts"]
    kept = {path for path, entry in found.items() if entry["hashed"]}
    assert {".css", ".js"} == {Path(path).suffix for path in kept}
    assert "" in found
    assert "404.html" in found


def test_the_site_stays_small(site: Path) -> None:
    """All files together, and the largest one, fit into Envoy's memory and its limit of a response."""
    sizes = [path.stat().st_size for path in site.rglob("*") if path.is_file()]
    assert BUDGET > sum(sizes)
    assert LARGEST > max(sizes)


def test_the_lock_names_the_version_of_swagger_ui() -> None:
    """The bill of materials has the version of Swagger UI that is served."""
    vendor = pages.ROOT / "docs" / "site" / "vendor"
    [entry] = json.loads((vendor / "package-lock.json").read_text())["packages"].values()
    script = gzip.decompress((vendor / "swagger-ui-bundle.js.gz").read_bytes()).decode()
    assert f'"{entry["version"]}"' in script
