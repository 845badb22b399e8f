"""The documentation without a running Parley: its links, its configurations and its make targets."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from docs import reference, vendors
from parley.config import VENDORS
from parley.config.loader import parse
from tests.pages import PAGES, ROOT, blocks, configurations, shell_lines

LINKED = [
    *PAGES,
    ROOT / "service" / "client" / "README.md",
    ROOT / "edge" / "kubernetes" / "README.md",
    ROOT / "tests" / "load" / "README.md",
    ROOT / "tests" / "faults" / "README.md",
]
LANGUAGES = {"", "json", "python", "sh", "yaml"}
"""The languages that a test checks."""


def name(page: Path) -> str:
    """Returns the path of a page in the repository."""
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """Returns the anchors that GitHub makes of the headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", LINKED, ids=name)
def test_every_relative_link_has_a_target(page: Path) -> None:
    """Each relative link names a file or a folder, and each anchor a heading."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    for link in links:
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_architecture_names_code_that_exists() -> None:
    """Each class or function that links to a Python file is defined in it."""
    page = ROOT / "docs" / "architecture.md"
    links = re.findall(r"\[`([\w.]+)`\]\((\S+\.py)\)", page.read_text(encoding="utf-8"))
    for path, file in links:
        code = (page.parent / file).read_text(encoding="utf-8")
        for part in () if path.endswith(".py") or "/" in path else path.split("."):
            assert re.search(rf"\b(?:class|def) {part}\b", code), path


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_is_of_a_language_that_is_tested(page: Path) -> None:
    """No code block escapes the tests by its language."""
    assert {language for language, _ in blocks(page)} <= LANGUAGES


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_yaml_block_is_a_configuration(page: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each YAML block is accepted by the loader, completed if it shows only a part."""
    (tmp_path / "secret").write_text("whsec_")
    for shown in configurations(page):
        text = re.sub(r"file:/run/secrets/\w+", f"file:{tmp_path}/secret", shown)
        for variable in re.findall(r"\$\{(\w+)\}", text):
            monkeypatch.setenv(variable, f"whsec_{'A' * 32}")
        assert parse(text, name(page)).models


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_json_block_is_json(page: Path) -> None:
    """Each JSON block is complete."""
    for language, text in blocks(page):
        assert language != "json" or json.loads(text)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_make_target_exists(page: Path) -> None:
    """Each `make` line, except `make run`, is a target with its arguments; make only prints what it would do."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    for line in shell_lines(page):
        if line.split()[0] == "make" and "make run" not in line:
            command = line.replace("make", "make -n", 1)
            done = subprocess.run(["bash", "-c", command], cwd=ROOT, env=environment, capture_output=True, check=False)
            assert 0 == done.returncode, (line, done.stderr)


def test_the_table_of_vendors_is_current() -> None:
    """The table in docs/vendors.md is that of the presets, and names the source of each."""
    page = (ROOT / "docs" / "vendors.md").read_text(encoding="utf-8")
    assert page == vendors.page(page)
    assert all(f"](https://{vendor.source})" in page for vendor in VENDORS.values())


def test_every_configuration_key_is_described() -> None:
    """The reference in docs/configuration.md is that of the models, and no key is without a description."""
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == reference.page(page)
    rows = [line for line in reference.reference().splitlines() if line.startswith("| `")]
    assert all(row.split("|")[-2].strip() for row in rows)
