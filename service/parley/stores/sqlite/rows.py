"""Statements that are run to their end."""

from typing import Any

import apsw


def rows(db: apsw.Connection, sql: str, values: Any) -> list[tuple[Any, ...]]:
    """Runs one statement and returns all its rows."""
    return db.execute(sql, values).fetchall()


def column(db: apsw.Connection, sql: str, values: Any) -> list[Any]:
    """Runs one statement and returns the first value of all its rows."""
    return [row[0] for row in db.execute(sql, values)]
