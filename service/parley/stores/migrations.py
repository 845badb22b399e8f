"""Numbered migrations of a schema. The version of a database is the number of the last applied migration.

A worker needs the version of its own Parley or a later one that supports it. A migration that older workers do not
notice, because it only adds what they do not use, has a line `-- oldest-worker: N`: the oldest version whose workers
continue to use the database. A migration without that line supports no older worker.
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_OLDEST_WORKER = re.compile(r"^-- oldest-worker: (\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Migration:
    """One migration.

    Attributes:
        number: The version of the schema after the migration, from 1.
        sql: The statements.
    """

    number: int
    sql: str

    @property
    def oldest_worker(self) -> int:
        """The oldest version whose workers can use the database after the migration."""
        stated = _OLDEST_WORKER.search(self.sql)
        return int(stated[1]) if stated else self.number


@cache
def migrations(package: str) -> Sequence[Migration]:
    """Reads the migrations of a store's package in order: `migrations/0001_….sql` and so on, without a gap."""
    folder = Path(str(sys.modules[package].__file__)).parent / "migrations"  # importlib.resources takes 0.7 MB
    found = sorted(folder.iterdir(), key=lambda file: file.name)
    steps = [Migration(int(file.name[:4]), file.read_text(encoding="utf-8")) for file in found]
    if [step.number for step in steps] != list(range(1, len(steps) + 1)):
        raise RuntimeError(f"{package}: the migrations are not numbered consecutively")
    return steps


def mismatch(found: int, needed: int, oldest_worker: int | None = None) -> str | None:
    """Returns the error message for a schema that a worker cannot use; None if it can.

    Args:
        found: The version of the schema.
        needed: The version of the worker.
        oldest_worker: The oldest version whose workers the schema supports; None for its own version only.
    """
    if found == needed or (oldest_worker is not None and oldest_worker <= needed < found):
        return None
    if found == 0:
        return "it has no tables of Parley but other content; move it away, or configure another location"
    if found > needed:
        oldest = found if oldest_worker is None else oldest_worker
        return (
            f"its schema has version {found}, which supports Parleys of version {oldest} and later; this Parley has"
            f" {needed}: install the one that upgraded the schema"
        )
    return f"its schema has version {found}, this Parley needs {needed}; run `parley db upgrade`"
