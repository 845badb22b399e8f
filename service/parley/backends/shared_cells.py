"""What the workers of a machine share about a target: three numbers, in a small file of the folder they run in."""

import hashlib
import mmap
import os
import struct
from collections.abc import Callable
from fcntl import LOCK_EX, LOCK_UN, flock
from pathlib import Path

from parley.core.pauses import Numbers

_FORM = struct.Struct("=ddd")


class SharedCell:
    """A cell in the file `path`. Readers look into shared memory; whoever changes it holds the file's lock."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("r+b" if path.exists() else "w+b", buffering=0)
        flock(self._file, LOCK_EX)
        if os.fstat(self._file.fileno()).st_size < _FORM.size:
            self._file.write(_FORM.pack(*Numbers()))
        flock(self._file, LOCK_UN)
        self._memory = mmap.mmap(self._file.fileno(), _FORM.size)

    def read(self) -> Numbers:
        """Returns the numbers."""
        return Numbers(*_FORM.unpack_from(self._memory))

    def change(self, change: Callable[[Numbers], Numbers]) -> Numbers:
        """Changes them under the lock, which nobody holds for longer than this; returns what they were before."""
        flock(self._file, LOCK_EX)
        try:
            before = self.read()
            _FORM.pack_into(self._memory, 0, *change(before))
        finally:
            flock(self._file, LOCK_UN)
        return before


def shared_cells(folder: Path) -> Callable[[str], SharedCell]:
    """Returns what finds the cell of a target, by its name, in a folder that all workers of the machine have."""
    return lambda name: SharedCell(folder / f"target-{hashlib.sha256(name.encode()).hexdigest()[:16]}")
