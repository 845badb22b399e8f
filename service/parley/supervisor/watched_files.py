"""Watches the files from which the configuration has values, such as keys."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from parley.supervisor import ticks
from parley.supervisor.process import print_notice

_SECONDS = 0.5


async def watch(files: Callable[[], Mapping[str, tuple[int, int, int]]], on_change: Callable[[], object]) -> None:
    """Calls `on_change` once for each change of the files.

    A file that is missing, empty or cannot be read now counts as unchanged: another one may be about to replace it. A
    change counts once the files have stayed the same for a moment: one that is written in place has only a part of its
    content at first.

    Args:
        files: Returns the files, each with its state when it was read: time of the last change (ns), inode and size.
        on_change: Has the configuration read again. The state of the files stays as it was if that fails.
    """
    tried: Mapping[str, tuple[int, int, int]] = {}
    latest: Mapping[str, tuple[int, int, int]] = {}
    while True:
        await ticks.pause(_SECONDS)
        known = files()
        found = {path: _state(path) or state for path, state in known.items()}
        is_stable, latest = found == latest, found
        if not is_stable or found in (known, tried):
            continue
        tried = found
        changed = [path for path, state in found.items() if state != known[path]]
        print_notice(f"{', '.join(changed)} has changed: the configuration is read again")
        on_change()


def _state(path: str) -> tuple[int, int, int] | None:
    with suppress(OSError):
        status = Path(path).stat()
        return (status.st_mtime_ns, status.st_ino, status.st_size) if status.st_size else None
    return None
