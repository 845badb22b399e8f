"""Breaker state of a target, shared by the workers of a machine in a small file of their run directory."""

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
    """Shared state in a file; `update` holds an exclusive file lock.

    Args:
        path: The file; created if it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        weakref.finalize(self, os.close, self._file)

    def read(self) -> ProbeTimes:
        """Returns the stored state; the initial state if the file is empty or truncated."""
        data = os.pread(self._file, _FORM.size, 0)
        return ProbeTimes(*_FORM.unpack(data)) if len(data) == _FORM.size else ProbeTimes()

    def update(self, change: Callable[[ProbeTimes], ProbeTimes]) -> ProbeTimes:
        """Applies `change` under the lock, which is held only for this update; returns the previous state."""
        flock(self._file, LOCK_EX)
        try:
            previous = self.read()
            os.pwrite(self._file, _FORM.pack(*change(previous)), 0)
        finally:
            flock(self._file, LOCK_UN)
        return previous


def shared_states(folder: Path) -> Callable[[str], FileState]:
    """Returns a factory of shared states by target name, in a folder that all workers of the machine share."""
    return lambda name: FileState(folder / f"target-{hashlib.sha256(name.encode()).hexdigest()[:16]}")
