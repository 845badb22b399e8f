"""Sentences of the command itself, wrapped at words on a terminal."""

import shutil
import sys
import textwrap
from typing import TextIO

from parley.cli.shared.terminal import without_control_characters


def print_wrapped(text: str, *, indent: int = 0, file: TextIO | None = None) -> None:
    """Prints a sentence without control characters.

    Args:
        text: The sentence.
        indent: Spaces in front of its second and further lines.
        file: Where it is printed; None for stdout. Elsewhere than on a terminal it stays one line.
    """
    target = file or sys.stdout
    shown = without_control_characters(text)
    if target.isatty():
        width = max(shutil.get_terminal_size().columns, 2 * indent, 20)
        lines = textwrap.wrap(
            shown, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
        )
        shown = "\n".join(lines)
    print(shown, file=target)


def print_error(text: str) -> None:
    """Prints an error that does not end the conversation."""
    print_wrapped(f"parley: {text}", file=sys.stderr)
