"""Sentences of the command itself, wrapped at words on a terminal."""

import re
import shutil
import sys
import textwrap
from typing import TextIO

from parley.cli.shared.terminal import without_control_characters

_COMMAND = re.compile(r"`[^`]*`")
_INDENT = 2
_SPACE = "\ue000"
"""Stands for a space where no line may end."""


def unbroken(text: str) -> str:
    """Returns a command as `print_wrapped` prints it in one line, so that it can be copied."""
    return text.replace(" ", _SPACE)


def print_wrapped(text: str, *, indent: int = 0, file: TextIO | None = None) -> None:
    """Prints a sentence without control characters. No line ends within a word, or within a command in backticks.

    Args:
        text: The sentence.
        indent: Spaces in front of its second and further lines.
        file: Where it is printed; None for stdout. Elsewhere than on a terminal it stays one line.
    """
    target = file or sys.stdout
    shown = without_control_characters(text)
    if target.isatty():
        width = max(shutil.get_terminal_size().columns, 2 * indent, 20)
        whole = _COMMAND.sub(lambda command: unbroken(command[0]), shown)
        lines = textwrap.wrap(
            whole, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
        )
        shown = "\n".join(lines)
    print(shown.replace(_SPACE, " "), file=target)


def print_error(text: str) -> None:
    """Prints an error, each of its lines as one."""
    for line in text.splitlines():
        print_wrapped(f"parley: {line}", indent=_INDENT, file=sys.stderr)
