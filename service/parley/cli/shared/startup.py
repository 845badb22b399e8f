"""The summary of a start on a terminal: each finished step with its duration, and the current one with its progress."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from parley.config import Config
from parley.config.stores import SqliteConfig
from parley.supervisor.messages import Progress

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_BAR_WIDTH = 24
_FRAMES_A_SECOND = 8


class StartSummary:
    """Shows the steps of a start: a line for each finished one, and a line below them that changes.

    Args:
        console: The terminal.
        clock: Returns the time in seconds.
    """

    def __init__(self, console: "Console", clock: Callable[[], float] = time.monotonic) -> None:
        from rich.live import Live
        from rich.spinner import Spinner

        self._console, self._clock = console, clock
        self._spinner: Spinner = Spinner("dots")
        self._step, self._started = Progress(""), 0.0
        self._live = Live(
            console=console,
            get_renderable=self._line,
            refresh_per_second=_FRAMES_A_SECOND,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def show(self, step: Progress) -> None:
        """Shows a step, or how far the current one is. Another step ends the current one."""
        if step.text != self._step.text:
            self.finish()
            self._started = self._clock()
        self._step = step
        self._live.start()

    def done(self, text: str) -> None:
        """Shows a step that took no time."""
        self._print(text)

    def finish(self) -> None:
        """Ends the current step."""
        text, self._step = self._step.text, Progress("")
        if text:
            self._print(text, f"  {self._clock() - self._started:.1f} s")

    def stop(self) -> None:
        """Removes the line that changes."""
        self._live.stop()

    def _print(self, text: str, duration: str = "") -> None:
        from rich.text import Text

        self._console.print(Text.assemble(("✓", "green"), f" {text}", (duration, "dim")))

    def _line(self) -> "RenderableType":
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        if not self._step.text:
            return Text("")
        line = Table.grid(padding=(0, 1))
        cells: list[RenderableType] = [self._spinner, Text(self._step.text, overflow="ellipsis", no_wrap=True)]
        if self._step.share is not None:
            bar = ProgressBar(total=1.0, completed=self._step.share, width=_BAR_WIDTH)
            cells += [bar, Text(f"{self._step.share:4.0%}")]
        line.add_row(*cells)
        return line


def configuration_step(file: Path | None, config: Config) -> str:
    """Returns the step of the configuration: its file, and how much there is."""
    counts = f"{_count(len(config.models), 'model')}, {_count(len(config.backends), 'backend')}"
    return f"Configuration {'built in' if file is None else file}: {counts}"


def store_step(config: Config, state: Path, *, is_open: bool) -> str:
    """Returns the step of the store: its kind, and the state folder."""
    kind = "SQLite" if isinstance(config.store, SqliteConfig) else "PostgreSQL"
    return f"Store {kind}{'' if is_open else ', not available yet'}; state folder {state}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@contextmanager
def summary(*, quiet: bool) -> Iterator[StartSummary | None]:
    """Yields the summary of the start; None if stderr is no terminal, or `quiet`. A failed step stays unfinished."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    shown = StartSummary(Console(stderr=True, highlight=False))
    try:
        yield shown
        shown.finish()
    finally:
        shown.stop()
