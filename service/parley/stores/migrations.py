"""Numbered migrations of a schema. The version of a database is the number of the last applied migration."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Migration:
    """One migration.

    Attributes:
        number: The version of the schema after the migration, from 1.
        sql: The statements.
    """

    number: int
    sql: str


@cache
def migrations(package: str) -> Sequence[Migration]:
    """Reads the migrations of a store's package in order: `migrations/0001_….sql` and so on, without a gap."""
    found = sorted((file for file in (files(package) / "migrations").iterdir()), key=lambda file: file.name)
    steps = [Migration(int(file.name[:4]), file.read_text(encoding="utf-8")) for file in found]
    if [step.number for step in steps] != list(range(1, len(steps) + 1)):
        raise RuntimeError(f"{package}: the migrations are not numbered consecutively")
    return steps


def mismatch(found: int, needed: int) -> str | None:
    """Returns the error message for the version of a schema; None if it is the needed version."""
    if found == needed:
        return None
    if found == 0:
        return "it has no tables of Parley but other content; move it away, or configure another location"
    if found > needed:
        return (
            f"its schema has version {found}, this Parley supports only {needed}; install the version that created it"
        )
    return f"its schema has version {found}, this Parley needs {needed}; stop Parley and run `parley db upgrade`"
