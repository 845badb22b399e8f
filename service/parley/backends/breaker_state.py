"""Breaker state of a target, shared by the workers of a machine in a small file of their run directory.

The file is a table of fixed size. The first slot is the state of all calls of the target. The others are those of
parts of its calls, by the hash of the part's name; of two parts with the same slot, the latest to write keeps it.
"""

import hashlib
import os
import struct
import weakref
from collections.abc import Callable
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock
from pathlib import Path

from parley.core.routing.probe_schedule import ProbeTimes

_FORM = struct.Struct("=Qdddddd")
_PARTS = 255
_ALL_CALLS = 0


class FileState:
    """A slot of the table; `update` holds an exclusive lock on the file.

    Args:
        file: The descriptor of the file.
        part: The hash of the part's name; 0 for all calls.
        table: The state that closes the file when nothing refers to it any more; None for that one.
    """

    def __init__(self, file: int, part: int = _ALL_CALLS, table: "FileState | None" = None) -> None:
        self._file = file
        self._owner = part
        self._slot = 0 if part == _ALL_CALLS else 1 + part % _PARTS
        self._table = table

    @classmethod
    def open(cls, path: Path) -> "FileState":
        """Opens the file, or creates it."""
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        state = cls(file)
        weakref.finalize(state, os.close, file)
        return state

    def read(self) -> ProbeTimes:
        """Returns the stored state; the initial state if the slot is empty, truncated or another part's."""
        data = os.pread(self._file, _FORM.size, self._slot * _FORM.size)
        if len(data) < _FORM.size:
            return ProbeTimes()
        owner, *times = _FORM.unpack(data)
        return ProbeTimes(*times) if owner == self._owner and any(times) else ProbeTimes()

    def update(self, change: Callable[[ProbeTimes], ProbeTimes]) -> ProbeTimes:
        """Applies `change` under the lock, which is held only for this update; returns the previous state."""
        flock(self._file, LOCK_EX)
        try:
            previous = self.read()
            data = _FORM.pack(self._owner, *change(previous))
            os.pwrite(self._file, data, self._slot * _FORM.size)
        finally:
            flock(self._file, LOCK_UN)
        return previous

    def part(self, name: str) -> "FileState":
        """Returns the state of a part of the calls, in the same file."""
        return FileState(self._file, int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]), self._table or self)


def shared_states(folder: Path) -> Callable[[str], FileState]:
    """Returns a factory of shared states by target name, in a folder that all workers of the machine share."""
    return lambda name: FileState.open(folder / f"target-{hashlib.sha256(name.encode()).hexdigest()[:16]}")


def leadership(folder: Path) -> Callable[[], bool]:
    """Returns a function that tries to make this worker the leader of those that share the folder.

    The leader stays one until its process ends; then another worker may become the leader.
    """
    file = os.open(folder / "targets.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def try_lead() -> bool:
        try:
            flock(file, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            return False
        return True

    weakref.finalize(try_lead, os.close, file)
    return try_lead
