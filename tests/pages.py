"""The pages of the documentation: README.md, CHANGELOG.md, docs/ and docs/recipes/."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
_FOLDERS = (ROOT / "docs", ROOT / "docs" / "recipes")
PAGES = [
    ROOT / "README.md",
    *(page for folder in _FOLDERS for page in sorted(folder.glob("*.md"))),
    ROOT / "CHANGELOG.md",
]
_BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```", re.DOTALL | re.MULTILINE)  # the language, then the text
BASE = """\
backends:
  local: {kind: llama_cpp}
  vllm: {kind: openai, base_url: "http://10.0.0.5:8000/v1"}
  openai: {kind: openai, base_url: "https://api.openai.com/v1"}
models:
  - {id: support, targets: [{backend: local}, {backend: openai, model: gpt-5-mini}]}
"""
"""Completes YAML examples that show only a part of a configuration."""


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Yields the language and the text of each code block."""
    yield from _BLOCK.findall(page.read_text(encoding="utf-8"))


def shell_lines(page: Path) -> list[str]:
    """Returns the lines of `sh` blocks, and those behind a `$` in blocks without a language."""
    lines = []
    for language, text in blocks(page):
        if language == "sh":
            lines += text.splitlines()
        elif not language:
            lines += [line[2:] for line in text.splitlines() if line.startswith("$ ")]
    return lines


def configurations(page: Path) -> list[str]:
    """Returns the YAML blocks as complete configurations."""
    return [_complete(text) for language, text in blocks(page) if language == "yaml"]


def _complete(text: str) -> str:
    part: dict[str, Any] = yaml.safe_load(text)
    if "backends" in part and "models" in part:
        return text
    base = yaml.safe_load(BASE)
    return yaml.safe_dump(base | part | {"backends": base["backends"] | part.get("backends", {})})
