"""Writes a file that a command makes for its user."""

from pathlib import Path

from parley.supervisor.errors import CommandError
from parley.supervisor.folders import write_private


def write_new(file: Path, text: str, *, force: bool) -> None:
    """Writes a file with mode 0600. Raises CommandError if it exists and `force` is not set, or cannot be written."""
    require_new(file, force=force)
    try:
        write_private(file, text)
    except OSError as error:
        raise CommandError(f"{file} cannot be written ({error.strerror}); name another file") from error


def require_new(file: Path, *, force: bool) -> None:
    """Raises CommandError if the file exists and `force` is not set."""
    if file.exists() and not force:
        raise CommandError(f"{file} exists; name another file, or replace it with --force")
