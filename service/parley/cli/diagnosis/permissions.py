"""Checks folders, files and the limits of the process."""

import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

from parley.cli.diagnosis.finding import Finding
from parley.cli.shared.first_key import FIRST_KEY
from parley.config import Config
from parley.stores.open import store_file
from parley.supervisor.errors import CommandError
from parley.supervisor.folders import require_trusted
from parley.supervisor.limits import FEW_DESCRIPTORS

_CHECK = "permissions"


def check(config: Config | None, folder: Path) -> Iterator[Finding]:
    """Yields the findings on the state folder, on private files and on the limit of open files."""
    yield _state_folder(folder)
    key = folder / FIRST_KEY
    if key.exists():
        message = f"{key} has the first API key in the clear"
        yield Finding(_CHECK, "warning", message, "store the key where it is needed, and delete the file")
    for file in _private_files(config, folder) if config is not None else ():
        if file.exists() and file.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
            yield Finding(_CHECK, "failed", f"other users can read or change {file}", f"run `chmod o-rw {file}`")
    yield _descriptors()


def _state_folder(folder: Path) -> Finding:
    place = next(one for one in (folder, *folder.parents) if one.exists())
    remedy = "change its mode or owner, or choose another folder with --state-dir"
    try:
        if place == folder:
            require_trusted(folder)
    except (CommandError, OSError) as error:
        message, _, given = str(error).partition("; ")
        return Finding(_CHECK, "failed", message, given or remedy)
    if not os.access(place, os.W_OK | os.X_OK):
        return Finding(_CHECK, "failed", f"{place} cannot be written", remedy)
    does = "is private and can be written" if place == folder else "does not exist yet; `parley up` creates it"
    return Finding(_CHECK, "ok", f"the state folder {folder} {does}")


def _private_files(config: Config, folder: Path) -> Iterator[Path]:
    if (database := store_file(config.store, folder)) is not None:
        yield database
    if config.tls is not None:
        yield config.tls.key


def _descriptors() -> Finding:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    shown = "unlimited" if limit == resource.RLIM_INFINITY else str(limit)
    if limit == resource.RLIM_INFINITY or limit >= FEW_DESCRIPTORS:
        return Finding(_CHECK, "ok", f"the limit of open files is {shown}")
    remedy = "raise the hard limit (`ulimit -Hn`, systemd's LimitNOFILE=, or Docker's --ulimit nofile=)"
    return Finding(_CHECK, "warning", f"the limit of open files is {shown}, which a few hundred streams use up", remedy)
