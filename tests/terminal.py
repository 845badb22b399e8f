"""A terminal with `parley up` in it."""

import os
import select
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.processes import Parley, environment, up_command, wait_ready


class Terminal:
    """A terminal that runs `parley up`, which is `parley`. Its screen is the log."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._ours, theirs = os.openpty()
        self._closed = threading.Event()
        self._screen = folder / "log"
        self._screen.touch()
        (folder / "output").symlink_to(self._screen)
        process = subprocess.Popen(
            up_command(folder, options),
            env=environment(TERM="xterm", PARLEY_WORKERS="1"),
            preexec_fn=lambda: os.login_tty(theirs),  # noqa: PLW1509 - it calls into the kernel and no further
            cwd=folder,
        )
        os.close(theirs)
        self.parley = Parley(process, folder)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def press(self, keys: bytes) -> None:
        """Writes to the terminal; Ctrl-C is the byte 3."""
        os.write(self._ours, keys)

    def close(self) -> None:
        """Closes the terminal."""
        if not self._closed.is_set():
            self._closed.set()
            self._reader.join()
            os.close(self._ours)

    def _read(self) -> None:
        with self._screen.open("wb", buffering=0) as screen:
            while not self._closed.is_set():
                if select.select([self._ours], [], [], 0.02)[0]:
                    try:
                        screen.write(os.read(self._ours, 65536))
                    except OSError:  # the other end is closed
                        return


@contextmanager
def in_terminal(*options: str) -> Iterator[Terminal]:
    """Runs `parley up` in a terminal until it serves, and stops it at the end."""
    with tempfile.TemporaryDirectory(prefix="parley-test-") as folder:
        terminal = Terminal(Path(folder), *options)
        try:
            wait_ready(terminal.parley)
            yield terminal
        finally:
            terminal.parley.stop()
            terminal.close()
