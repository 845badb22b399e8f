"""Folders for Unix sockets, accessible to their owner only."""

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
    """Creates an empty folder for Unix sockets and removes it afterwards: in the state folder unless its path is long.

    Raises CommandError if the folder belongs to another user or is accessible to others.
    """
    folder = state / "run"
    if len(os.fsencode(folder)) > _MAX_RUN_DIR_LENGTH:
        name = hashlib.sha256(os.fsencode(state)).hexdigest()[:12]
        folder = _temporary() / f"parley-{os.getuid()}-{name}"
    private_dir(folder)
    shutil.rmtree(folder)  # files of a killed Parley
    private_dir(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def passing_run_dir() -> Iterator[Path]:
    """Creates a run folder with a unique name and removes it afterwards."""
    with tempfile.TemporaryDirectory(prefix="parley-", dir=_temporary()) as folder:
        yield Path(folder)


def _temporary() -> Path:
    """Returns the folder for temporary files; `/tmp` if its path is long."""
    folder = Path(tempfile.gettempdir())
    return folder if len(os.fsencode(folder)) <= _MAX_RUN_DIR_LENGTH // 2 else Path("/tmp")  # noqa: S108 - ours is private


def private_dir(folder: Path) -> None:
    """Creates a folder with mode 0700. Raises CommandError if it exists with another owner or mode."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise CommandError(f"{folder} cannot be made ({error.strerror}); remove what is in its place") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise CommandError(f"{folder} is not a folder of our own that only we may enter; remove it")
