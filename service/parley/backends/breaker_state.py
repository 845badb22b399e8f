"""What the workers of a machine share about a target: five numbers, in a small file of the folder they run in."""

import hashlib
import os
import struct
import weakref
from collections.abc import Callable
from fcntl import LOCK_EX, LOCK_UN, flock
from pathlib import Path

from parley.core.routing.probe_schedule import ProbeTimes

_FORM = struct.Struct("=ddddd")


class FileState:
    """A cell in the file `path`, which is made where there is none. Whoever changes it holds the file's lock."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        weakref.finalize(self, os.close, self._file)

    def read(self) -> ProbeTimes:
        """Returns the numbers; those of the beginning where the file has none, or has lost them."""
        data = os.pread(self._file, _FORM.size, 0)
        return ProbeTimes(*_FORM.unpack(data)) if len(data) == _FORM.size else ProbeTimes()

    def update(self, change: Callable[[ProbeTimes], ProbeTimes]) -> ProbeTimes:
        """Changes them under the lock, which nobody holds for longer than this; returns what they were before."""
        flock(self._file, LOCK_EX)
        try:
            previous = self.read()
            os.pwrite(self._file, _FORM.pack(*change(previous)), 0)
        finally:
            flock(self._file, LOCK_UN)
        return previous


def shared_states(folder: Path) -> Callable[[str], FileState]:
    """Returns what finds the cell of a target, by its name, in a folder that all workers of the machine have."""
    return lambda name: FileState(folder / f"target-{hashlib.sha256(name.encode()).hexdigest()[:16]}")
