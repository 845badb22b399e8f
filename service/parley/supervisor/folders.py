"""Folders for the sockets of one Parley, which only its owner may enter."""

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from parley.supervisor.errors import CommandError

# The path of a Unix socket has at most 104 bytes on macOS (108 on Linux), its closing zero included. The longest name
# in the run folder is `models-99/llama-<32 characters>.sock`.
_MAX_RUN_DIR_LENGTH = 49


@contextmanager
def run_dir(state: Path) -> Iterator[Path]:
    """Has the folder for Unix sockets there, empty at first: in the state folder unless its path is long.

    Raises CommandError where the folder is someone else's, or open to others.
    """
    folder = state / "run"
    if len(os.fsencode(folder)) > _MAX_RUN_DIR_LENGTH:
        name = hashlib.sha256(os.fsencode(state)).hexdigest()[:12]
        folder = _temporary() / f"parley-{os.getuid()}-{name}"
    private_dir(folder)
    shutil.rmtree(folder)  # what a killed Parley has left
    private_dir(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def passing_run_dir() -> Iterator[Path]:
    """A run folder that nobody else uses, and that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="parley-", dir=_temporary()) as folder:
        yield Path(folder)


def _temporary() -> Path:
    """The folder for temporary files, unless its path is long."""
    folder = Path(tempfile.gettempdir())
    return folder if len(os.fsencode(folder)) <= _MAX_RUN_DIR_LENGTH // 2 else Path("/tmp")  # noqa: S108 - ours is private


def private_dir(folder: Path) -> None:
    """Makes a folder that only its owner may enter. Raises CommandError where it is there and is not such a one."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise CommandError(f"{folder} cannot be made ({error.strerror}); remove what is in its place") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise CommandError(f"{folder} is not a folder of our own that only we may enter; remove it")
