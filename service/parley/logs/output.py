"""A descriptor that is written to without ever waiting or failing: a log must not stop what it reports on."""

import os
import stat
from contextlib import suppress

_LOST = b"(%d log lines were lost: the output could not be written)\n"


class Output:
    """Writes whole lines to a descriptor; lines that it does not take at once are dropped and counted.

    A reader that has gone, that is stuck, a terminal that is stopped and a full disk cost log lines and nothing else.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = _nonblocking(descriptor)
        self._lost = 0
        self._torn = False

    def write(self, line: bytes) -> None:
        """Writes bytes that end in a line feed, or drops them."""
        is_whole = self._lost == 0 and not self._torn
        if not ((is_whole or self._report()) and self._put(line)):
            self._lost += 1

    def flush(self) -> None:
        """Does nothing: nothing is buffered."""

    def _report(self) -> bool:
        """Writes how many lines were lost before the next one; False where that cannot be written either."""
        if not self._put((b"\n" if self._torn else b"") + (_LOST % self._lost if self._lost else b"")):
            return False
        self._lost = 0
        return True

    def _put(self, data: bytes) -> bool:
        written = 0
        with suppress(OSError):
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
        self._torn = 0 < written < len(data)
        return written == len(data)


def _nonblocking(descriptor: int) -> int:
    """Opens a pipe or a terminal a second time, so that only this process's writes do not wait.

    The flag on the descriptor itself would be shared with every process that has it. Files never wait; where the second
    opening fails, for a socket for example, the descriptor is used as it is.
    """
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        with suppress(OSError):
            return os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    return descriptor
