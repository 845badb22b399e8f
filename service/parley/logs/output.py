"""Writes log lines to a descriptor without blocking or failing, so that a log cannot stop the service."""

import os
import stat
from contextlib import suppress

_LOST = b"(%d log lines were lost: the output could not be written)\n"


class Output:
    """Writes complete lines to a descriptor. Lines that cannot be written at once are dropped and counted.

    A closed pipe, a blocked reader, a stopped terminal and a full disk lose log lines and have no other effect.

    Attributes:
        lines_lost: The number of dropped lines since the start.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = _nonblocking(descriptor)
        self.lines_lost = self._reported = 0
        self._partial = False

    def write(self, line: bytes) -> None:
        """Writes a line with its line feed, or drops it."""
        is_clean = self.lines_lost == self._reported and not self._partial
        if not ((is_clean or self._report()) and self._put(line)):
            self.lines_lost += 1

    def _report(self) -> bool:
        """Writes how many lines were lost since the last report. Returns False if that cannot be written either."""
        lost = self.lines_lost - self._reported
        if not self._put((b"\n" if self._partial else b"") + (_LOST % lost if lost else b"")):
            return False
        self._reported = self.lines_lost
        return True

    def _put(self, data: bytes) -> bool:
        written = 0
        try:
            while written < len(data):
                written += os.write(self._descriptor, data[written:] if written else data)
        except OSError:
            self._partial = written > 0
            return False
        self._partial = False
        return True


def _nonblocking(descriptor: int) -> int:
    """Opens a pipe or a terminal again without blocking.

    O_NONBLOCK on the descriptor itself would affect all processes that share it. Files never block. If it cannot be
    opened again, for example because it is a socket, the descriptor is returned unchanged.
    """
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        with suppress(OSError):
            return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    return descriptor
