"""Code in pages: programs of files, each in a tab, and the language of blocks that name none."""

import re
import textwrap
from pathlib import Path

_LANGUAGES = {".go": "go", ".py": "python", ".sh": "bash", ".ts": "typescript"}
_ITEM = rf"- \[[^]\n]+\]\([^)\s:]+({'|'.join(map(re.escape, _LANGUAGES))})\)\n"
_LIST = re.compile(rf"^(?:{_ITEM})+", re.MULTILINE)
_LINK = re.compile(r"^- \[(?P<title>[^]]+)\]\((?P<path>[^)]+)\)$", re.MULTILINE)
_BLOCK = re.compile(r"^```\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)


def show(text: str, folder: Path) -> str:
    """Replaces each list of links to programs by the programs, as tabs.

    Args:
        text: The page; every item of such a list is one link to a file, and nothing else.
        folder: The folder of the page, to which links are relative.
    """
    return _LIST.sub(lambda found: _tabs(found[0], folder), text)


def _tabs(links: str, folder: Path) -> str:
    tabs = []
    for link in _LINK.finditer(links):
        file = folder / link["path"]
        block = f"```{_LANGUAGES[file.suffix]}\n{file.read_text(encoding='utf-8').rstrip()}\n```\n"
        tabs.append(f'=== "{link["title"]}"\n\n{textwrap.indent(block, "    ")}\n')
    return "".join(tabs)


def name_language(block: str) -> str:
    """Gives a block of code without a language the one for what it shows: a terminal, or plain text.

    Args:
        block: The block, with its fences.
    """
    found = _BLOCK.fullmatch(block)
    if not found:
        return block
    is_terminal = any(line.startswith("$ ") for line in found["text"].splitlines())
    return f"```{'console' if is_terminal else 'text'}\n{found['text']}```"
