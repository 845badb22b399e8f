"""Online backup of the SQLite file."""

import os
from contextlib import closing
from pathlib import Path

import apsw

from parley.core.errors import StoreUnavailable
from parley.stores.sqlite.database import OUTAGES

_PAGES = 4096  # copied at a time


def backup(source: Path, target: Path) -> None:
    """Copies a database while it is in use to a new file, as one snapshot that is on disk.

    The copy shares the identity of the original, so that Parley accepts it in its place.

    Args:
        source: The file of the store.
        target: The new file, which is complete or does not exist.

    Raises:
        StoreUnavailable: A file cannot be read or written, or the target exists.
    """
    if target.exists():
        raise StoreUnavailable(f"{target} exists; name a new file, or remove it")
    unfinished = target.with_name(f"{target.name}.unfinished")
    try:
        _copy(source, unfinished)
        unfinished.rename(target)
    except OUTAGES as error:
        raise StoreUnavailable(f"{source} cannot be copied to {target}: {error}") from error
    except OSError as error:
        raise StoreUnavailable(f"{target} cannot be written: {error.strerror}") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)  # of an interrupted backup
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with closing(apsw.Connection(str(source), flags=apsw.SQLITE_OPEN_READWRITE)) as original:
        # One read transaction: otherwise a write of another process would restart the copy.
        original.execute("BEGIN")
        original.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
        with closing(apsw.Connection(str(target))) as copy:
            with copy.backup("main", original, "main") as running:
                while not running.done:
                    running.step(_PAGES)
            copy.pragma("journal_mode", "delete")  # the file is complete without a -wal file
