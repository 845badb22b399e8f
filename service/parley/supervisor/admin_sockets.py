"""The sockets of the workers besides those of their calls, and the link in the state folder to one of them."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from parley.supervisor.process import print_notice


def admin_socket(worker: Path) -> Path:
    """Returns the path of a worker's admin socket, beside the socket `worker-N.sock` of its calls."""
    return worker.with_name(f"{worker.stem}-admin.sock")


def remote_admin_socket(worker: Path) -> Path:
    """Returns the path of a worker's socket for Envoy's admin listener."""
    return worker.with_name(f"{worker.stem}-remote-admin.sock")


def metrics_socket(worker: Path) -> Path:
    """Returns the path of a worker's socket for metrics."""
    return worker.with_name(f"{worker.stem}-metrics.sock")


class AdminLink:
    """A symbolic link to the admin socket of a worker that serves, `admin.sock` in the state folder.

    The link has one well-known path, whichever worker serves, and is replaced atomically.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._target: Path | None = None
        self.remove()  # of a killed Parley

    def update(self, workers: Sequence[Path]) -> None:
        """Links to one of the workers, given by the sockets of their calls. Keeps the link if it is right."""
        sockets = [admin_socket(worker) for worker in workers]
        if not sockets or self._target in sockets:
            return
        draft = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            draft.unlink(missing_ok=True)
            draft.symlink_to(sockets[0])
            draft.replace(self._path)
            self._target = sockets[0]
        except OSError as error:
            print_notice(f"{self._path} cannot be written ({error.strerror}); the admin API has no socket there")

    def remove(self) -> None:
        """Removes the link."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
