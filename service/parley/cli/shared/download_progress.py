"""The progress of a download: a bar on a terminal, otherwise a line each tenth."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from parley.cli.shared.download import Show

_TENTHS = 10


@contextmanager
def progress(name: str) -> Iterator[Show]:
    """Yields a function that shows the progress of a download."""
    if not sys.stderr.isatty():
        yield tenths(name)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def tenths(name: str) -> Show:
    """Returns a function that prints a line to stderr for each tenth."""
    last = -1

    def show(done: int, total: int | None) -> None:
        nonlocal last
        tenth = done * _TENTHS // total if total else 0
        if tenth != last:
            last = tenth
            print(f"parley: {name}: {done >> 20} MiB{f' of {total >> 20} MiB' if total else ''}", file=sys.stderr)

    return show
