"""Answers as Markdown in a terminal, while they arrive.

Finished blocks (paragraphs, lists, code) are printed once. Only the block that still grows is drawn again, as far as it
fits on the screen. So a long answer costs no more at its end than at its beginning, and scrolls like any output.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import ClassVar, Self

from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.markdown import Heading, Markdown, TableElement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

# Definitions of links stay text: their blocks would be empty, and so would what they hide.
_PARSER = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"]).disable("reference")
_CODE_THEME = "ansi_dark"  # the colours of the terminal, on its own background
_SHARE = 4  # drawing takes at most a fifth of the time
_MIN_SECONDS = 0.03
_DRAWN = 8_000  # characters up to which a growing block is drawn as Markdown
_LONGEST = 100_000  # characters of a block that is printed as Markdown
_REASONING_LINES = 4
_INDENT = 2  # columns that a level of nesting takes, about
_NARROWEST = 20  # columns that are left for the text of nested blocks; the parser leaves out what is nested deeper
# Characters without width, about which terminals differ. Those that join letters or emoji stay.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u2060-\u2064\u206a-\u206f\u3164\ufeff\uffa0]"
)
_WRAP_OFF, _WRAP_ON = "\x1b[?7l", "\x1b[?7h"  # DECAWM


class _Heading(Heading):
    """A heading that is aligned to the left."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.text


class _Table(TableElement):
    """A table whose cells are wrapped, also within words, and never cut off."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for table in super().__rich_console__(console, options):
            if isinstance(table, Table):
                for column in table.columns:
                    column.overflow = "fold"
            yield table


def _as_text(token: Token) -> Token:
    """Returns an image as text with its address; rich would place it before its paragraph. Other tokens stay."""
    if token.type != "image":
        return token
    return Token("text", "", 0, content=f"🌆 {token.content} ({token.attrs.get('src', '')})")


class _Markdown(Markdown):
    """Markdown without HTML, which rich would leave out, and with visible addresses of links and images."""

    elements: ClassVar = {**Markdown.elements, "heading_open": _Heading, "table_open": _Table}

    def __init__(self, text: str) -> None:
        super().__init__("", code_theme=_CODE_THEME, hyperlinks=False)
        self.markup = text
        self.parsed = _PARSER.parse(text)
        for token in self.parsed:
            token.children = [_as_text(one) for one in token.children or [] if one.markup != "autolink"] or None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        deepest = max((token.level for token in self.parsed), default=0)
        if deepest >= _PARSER.options.maxNesting - 1 or deepest * _INDENT > options.max_width - _NARROWEST:
            yield Text(self.markup)
        else:
            yield from super().__rich_console__(console, options)


class _Tail:
    """The last lines of something, as many as fit on the screen."""

    def __init__(self, shown: RenderableType, limit: int | None = None) -> None:
        self._shown, self._limit = shown, limit

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = _lines(self._shown, console, options)
        yield from _joined(lines[-min(self._limit or len(lines), max(1, console.height - 2)) :])


class _Block:
    """A block without the blank lines around it, which differ by its kind."""

    def __init__(self, shown: RenderableType) -> None:
        self._shown = shown

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from _joined(_lines(self._shown, console, options))


def _lines(shown: RenderableType, console: Console, options: ConsoleOptions) -> list[list[Segment]]:
    """Returns the lines of something, without blank ones at both ends."""
    lines = console.render_lines(shown, options.update(height=None), pad=False)
    filled = [index for index, line in enumerate(lines) if any(segment.text.strip() for segment in line)]
    return lines[filled[0] : filled[-1] + 1] if filled else []


def _joined(lines: list[list[Segment]]) -> Iterator[Segment]:
    for line in lines:
        yield from line
        yield Segment.line()


def split_blocks(text: str) -> list[str]:
    """Splits Markdown into its top-level blocks. Without any, the text is the only one.

    Of Markdown that still grows, all but the last block are finished if the text ends with a complete line.
    """
    starts = sorted({token.map[0] for token in _PARSER.parse(text) if token.level == 0 and token.map})
    lines = text.split("\n")
    bounds = [0, *starts[1:], len(lines)]
    parts = ["\n".join(lines[start:end]) for start, end in pairwise(bounds)]
    return [f"{part}\n" for part in parts[:-1]] + parts[-1:]


class MarkdownView:
    """Shows an answer as Markdown that grows.

    Args:
        console: The terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> Self:
        self._rest, self._reasoning = "", ""
        self._has_blocks = self._has_model = False
        self._next = 0.0
        self._live = Live(
            console=self._console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        )
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.update(Text(""), refresh=False)
        self._live.stop()
        for block in split_blocks(self._rest):
            self._print_block(block)
        if self._has_model:  # an attempt that was refused leaves no line
            self._console.print()

    def show_model(self, model: str) -> None:
        """Prints the model's id above its answer."""
        self._has_model = True
        self._console.print(Text(model, "dim"))

    def show_reasoning(self, text: str) -> None:
        """Shows the end of the reasoning until the answer begins."""
        self._reasoning = (self._reasoning + text)[-_DRAWN:]
        self._draw(_Tail(Text(self._reasoning, "dim italic"), _REASONING_LINES))

    def show(self, text: str) -> None:
        """Adds a part of the answer."""
        self._rest += _INVISIBLE.sub("", text)
        if time.monotonic() >= self._next:
            self._advance()

    def _advance(self) -> None:
        """Prints the finished blocks, and draws the one that grows."""
        end = self._rest.rfind("\n") + 1
        blocks = split_blocks(self._rest[:end])
        growing = blocks.pop() + self._rest[end:]
        if len(growing) > _LONGEST:
            blocks, growing = [*blocks, growing], ""
        if blocks:
            self._live.update(Text(""), refresh=True)
        for block in blocks:
            self._print_block(block)
        self._rest = growing
        self._draw(_Tail(_Markdown(growing) if len(growing) <= _DRAWN else Text(growing[-_DRAWN:])))

    def _draw(self, shown: RenderableType) -> None:
        """Draws the growing part, unless it was drawn just now."""
        started = time.monotonic()
        if started < self._next:
            return
        with self._unwrapped():
            self._live.update(shown, refresh=True)
        ended = time.monotonic()
        self._next = ended + max(_MIN_SECONDS, _SHARE * (ended - started))

    @contextmanager
    def _unwrapped(self) -> Iterator[None]:
        """Lets the terminal wrap no lines meanwhile.

        Terminals differ about the width of some characters. A line that one of them wraps would be drawn again below.
        """
        if not self._console.is_terminal:
            yield
            return
        self._console.file.write(_WRAP_OFF)
        try:
            yield
        finally:
            self._console.file.write(_WRAP_ON)
            self._console.file.flush()

    def _print_block(self, text: str) -> None:
        if not text.strip():
            return
        if self._has_blocks:
            self._console.print()
        self._has_blocks = True
        self._console.print(_Block(_Markdown(text) if len(text) <= _LONGEST else Text(text)), end="")
