"""Prints untrusted text: text of models and callers must not move the cursor or change the colours."""

import os
import sys
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from parley.logs.characters import CONTROLS, escape_controls

_BREAKS = str.maketrans("\t\n", "  ")
_ANY_WIDTH = 1000
_MIN_FOLDED = 6  # characters that a folded column keeps in a narrow terminal


def without_control_characters(text: str) -> str:
    """Returns the text without control characters."""
    return CONTROLS.sub("", text)


def json_text(text: str | bytes) -> str:
    """Returns JSON with its control characters escaped."""
    return escape_controls(text if isinstance(text, bytes) else text.encode(errors="replace")).decode()


def message_text(message: dict[str, Any]) -> str:
    """Returns a message as text: its text parts, `[image_url]` for other parts, then its tool calls."""
    content = message.get("content")
    parts = content if isinstance(content, list) else [content] if content else []
    lines = [_part(part) for part in parts]
    lines += [message[name] for name in ("refusal",) if message.get(name)]
    calls = [call.get("function") or call.get("custom") or {} for call in message.get("tool_calls", [])]
    calls += [message["function_call"]] if "function_call" in message else []
    lines += [f"→ {call.get('name', '')}({call.get('arguments', call.get('input', ''))})" for call in calls]
    return without_control_characters("\n".join(lines))


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type", "part") if isinstance(part, dict) else "part"
    return str(part["text"]) if kind == "text" and "text" in part else f"[{kind}]"


def _cell(text: str, *, breaks: bool) -> str:
    shown = without_control_characters(text)
    return shown if breaks else shown.translate(_BREAKS)


def print_table(
    names: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    folded: Collection[str],
    numbers: Collection[str] = (),
    multiline: Collection[str] = (),
) -> None:
    """Prints a table. If stdout is not a terminal, every row is one line.

    Args:
        names: The headings.
        rows: The cells of each row.
        folded: Columns that wrap if the terminal is narrow.
        numbers: Columns that are aligned to the right.
        multiline: Columns whose cells may have several lines; elsewhere, line breaks could imitate a row.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    cells = [[_cell(cell, breaks=name in multiline) for name, cell in zip(names, row, strict=True)] for row in rows]
    for place, name in enumerate(names):
        widest = max((len(line) for row in cells for line in row[place].splitlines()), default=0)
        table.add_column(
            name,
            overflow="fold",
            no_wrap=name not in folded,
            # A truncated id or date is useless, and so is a column of single letters.
            min_width=max(min(widest, _MIN_FOLDED) if name in folded else widest, len(name)),
            justify="right" if name in numbers else "left",
        )
    for row in cells:
        table.add_row(*map(Text, row))  # as Text, because square brackets would be read as a style
    is_given = sys.stdout.isatty() or "COLUMNS" in os.environ
    Console(width=None if is_given else _ANY_WIDTH).print(table, crop=False)
