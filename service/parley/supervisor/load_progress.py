"""How far a model server has loaded its model, by the kernel: the bindings of llama.cpp do not report it."""

import asyncio
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from parley.supervisor.messages import Progress

_POLL_SECONDS = 0.2
_RESIDENT = re.compile(rb"^Rss:\s+(\d+) kB", re.MULTILINE)
_READ = re.compile(rb"rchar: (\d+)")
_MAPPING = re.compile(rb"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )")
_KIB = 1024


def title(models: Sequence[Path]) -> str:
    """Returns the step of loading these files, with the size of a single one."""
    if len(models) != 1:
        return f"Loading {len(models)} models"
    try:
        size = f", {models[0].stat().st_size >> 20} MiB"
    except OSError:  # its server reports what is wrong
        size = ""
    return f"Loading {models[0].name}{size}"


async def follow(
    models: Callable[[], Sequence[tuple[int | None, Path]]], text: str, show: Callable[[Progress], None]
) -> None:
    """Shows how far the models are loaded, until it is cancelled.

    Args:
        models: Returns the process of each model, None before its start, and the model's file.
        text: The step.
        show: Shows a step.
    """
    while True:
        await asyncio.sleep(_POLL_SECONDS)
        shares = [loaded_share(process, file) for process, file in models() if process is not None]
        known = [share for share in shares if share is not None]
        if known:
            show(Progress(text, min(known)))


def loaded_share(process: int, file: Path, proc: Path = Path("/proc")) -> float | None:
    """Returns how much of a file a process has in its memory, from 0 to 1; None where the system does not say.

    llama.cpp maps the file, or reads it where the configuration or the system prevents that.
    """
    try:
        size = file.stat().st_size
        mapped = _resident(proc / str(process) / "smaps", os.fsencode(file.resolve()))
        found = _READ.search((proc / str(process) / "io").read_bytes())
    except OSError:
        return None
    return min(1.0, max(mapped, int(found[1]) if found else 0) / max(size, 1))


def _resident(smaps: Path, file: bytes) -> int:
    """Returns the bytes of a file that are in memory, in all its mappings."""
    total = 0
    for mapping in _MAPPING.split(smaps.read_bytes()):
        head, _, rest = mapping.partition(b"\n")
        if head.endswith(b" " + file) and (found := _RESIDENT.search(rest)):
            total += int(found[1]) * _KIB
    return total
