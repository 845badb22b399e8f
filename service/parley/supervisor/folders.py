"""The state folder, and folders for Unix sockets that only their owner may enter."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
from pathlib import Path

from parley.supervisor.errors import CommandError

# The path of a Unix socket has at most 104 bytes on macOS (108 on Linux), its closing zero included. The longest name
# in the run folder is `models-99/llama-<32 characters>.sock`.
_MAX_RUN_DIR_LENGTH = 49
_LOCK = "parley.lock"


def default_state_dir() -> Path:
    """Returns the default state folder.

    That is `.parley` in the current folder if it exists (`make run` creates it), else `$XDG_STATE_HOME/parley`, else
    `~/.local/state/parley`.
    """
    here = Path(".parley")
    if here.is_dir():
        return here.absolute()
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "parley"


def state_dir(chosen: Path | None) -> Path:
    """Creates the state folder with mode 0700 and returns it.

    Raises CommandError if it cannot be written, or if others can write to it.
    """
    folder = (chosen or default_state_dir()).expanduser().absolute()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        require_trusted(folder)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        reason = error.strerror or str(error)
        raise CommandError(f"{folder} cannot be written ({reason}); choose another folder with --state-dir") from error


def require_trusted(folder: Path) -> None:
    """Raises CommandError if another user can change the files of the state folder, or replace the folder.

    A folder of root that only a group of this process can write to is accepted: Kubernetes (`fsGroup`) and OpenShift
    mount volumes so. If it is a mount point, all may write to it: so Kubernetes mounts an `emptyDir`, which only the
    containers of the pod see. Root accepts folders of other users, as containers mount them.
    """
    status = folder.stat()
    is_mount = status.st_uid == 0 and status.st_gid in {os.getegid(), *os.getgroups()}
    if is_mount and os.geteuid() != 0 and folder.is_mount():
        return
    if status.st_uid != os.geteuid() and os.geteuid() != 0 and not is_mount:
        owner = f"belongs to another user (uid {status.st_uid})"
        raise CommandError(f"{folder} {owner}; run `chown {os.geteuid()} {folder}`, or choose another --state-dir")
    if status.st_mode & stat.S_IWOTH or (status.st_mode & stat.S_IWGRP and not (is_mount and os.geteuid() != 0)):
        raise CommandError(
            f"other users can write to {folder}; run `chmod go-w {folder}`, or choose another --state-dir"
        )
    for parent in folder.resolve().parents:
        if parent.stat().st_mode & (stat.S_IWOTH | stat.S_ISVTX) == stat.S_IWOTH:
            raise CommandError(
                f"other users can replace {folder}: they can write to {parent}; run `chmod o-w {parent}`, or choose"
                " another --state-dir"
            )


def running_process(state: Path) -> str | None:
    """Returns the process id of the `parley up` that uses a state folder; None if none runs."""
    try:
        file = (state / _LOCK).open(encoding="ascii")
    except OSError:
        return None
    with file:
        try:
            flock(file, LOCK_SH | LOCK_NB)
        except BlockingIOError:
            return file.read().strip() or "?"
    return None


@contextmanager
def locked(state: Path) -> Iterator[None]:
    """Locks the state folder for one `parley up`. Raises CommandError if another process holds the lock."""
    descriptor = os.open(state / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+", encoding="ascii") as file:
        try:
            flock(file, LOCK_EX | LOCK_NB)
        except BlockingIOError as error:
            owner = f"process {file.read().strip() or '?'}"
            message = f"{state} is in use by another `parley up` ({owner}); stop it or choose another --state-dir"
            raise CommandError(message) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextmanager
def run_dir(state: Path) -> Iterator[Path]:
    """Creates an empty folder for Unix sockets and removes it afterwards: `run` in the state folder.

    If that path is too long for a socket, `run` is a link to a folder for temporary files.

    Raises CommandError if the folder belongs to another user or is accessible to others.
    """
    link = folder = state / "run"
    if len(os.fsencode(folder)) > _MAX_RUN_DIR_LENGTH:
        import hashlib  # with a library of 4 MB, which a short path does not need

        name = hashlib.sha256(os.fsencode(state)).hexdigest()[:12]
        folder = _temporary() / f"parley-{os.getuid()}-{name}"
    if link.is_symlink():
        link.unlink()
    private_dir(folder)
    shutil.rmtree(folder)  # files of a killed Parley
    private_dir(folder)
    if link != folder:
        with suppress(OSError):  # some file systems have no links; only the operator looks here
            link.symlink_to(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if link.is_symlink():
            link.unlink()


@contextmanager
def passing_run_dir() -> Iterator[Path]:
    """Creates a run folder with a unique name and removes it afterwards."""
    with tempfile.TemporaryDirectory(prefix="parley-", dir=_temporary()) as folder:
        yield Path(folder)


def _temporary() -> Path:
    """Returns the folder for temporary files; `/tmp` if its path is long."""
    folder = Path(tempfile.gettempdir())
    return folder if len(os.fsencode(folder)) <= _MAX_RUN_DIR_LENGTH // 2 else Path("/tmp")  # noqa: S108 - the run folder is private


def private_dir(folder: Path) -> None:
    """Creates a folder with mode 0700. Raises CommandError if it exists with another owner or mode."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError as error:
        raise CommandError(f"{folder} cannot be created ({error.strerror}); remove what is in its place") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise CommandError(f"{folder} must be a folder that only this user owns and may enter; remove it")


def write_private(file: Path, text: str) -> None:
    """Writes a file with mode 0600, atomically; an existing file, also a link, is replaced. Raises OSError."""
    descriptor, draft = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as output:
            output.write(text)
        Path(draft).replace(file)
    except OSError:
        Path(draft).unlink(missing_ok=True)
        raise
