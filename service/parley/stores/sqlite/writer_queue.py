"""The order in which the processes of a machine write to one SQLite file."""

import fcntl
import os
import time
from pathlib import Path

from parley.core.errors import StoreUnavailable

_QUEUE_SECONDS = 1.0
_QUEUE_POLL = 0.0005


class WriterQueue:
    """Distributes the write lock fairly among processes.

    SQLite's write lock has no queue, so the process that has just released it usually acquires it again. Therefore only
    the holder of a second lock, on a file of its own, requests the write lock. If that holder is suspended, the others
    proceed after a short timeout.
    """

    def __init__(self, path: Path, *, allow_unavailable: bool = False) -> None:
        """Opens the lock file and creates it if necessary. Raises StoreUnavailable.

        Args:
            path: The lock file.
            allow_unavailable: Opens it at its first use, because its folder may be missing until then.
        """
        self._path = path
        self._file: int | None = None
        if not allow_unavailable:
            self._open()

    def acquire(self) -> None:
        """Waits for the second lock, for up to `_QUEUE_SECONDS`. Raises StoreUnavailable."""
        file = self._open() if self._file is None else self._file
        if _try_lock(file):
            return
        deadline = time.monotonic() + _QUEUE_SECONDS
        while not _try_lock(file) and time.monotonic() < deadline:
            time.sleep(_QUEUE_POLL)

    def release(self) -> None:
        """Releases the second lock."""
        assert self._file is not None  # noqa: S101 - `acquire` has opened it
        fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Closes the lock file."""
        if self._file is not None:
            os.close(self._file)

    def _open(self) -> int:
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnavailable(
                f"{self._path}: it cannot be created ({error.strerror}); check its folder"
            ) from error
        return self._file


def _try_lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
