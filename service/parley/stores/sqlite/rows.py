"""Functions that run a statement to completion."""

from typing import Any

import apsw


def rows(db: apsw.Connection, sql: str, values: Any) -> list[tuple[Any, ...]]:
    """Runs a statement and returns all rows."""
    return db.execute(sql, values).fetchall()


def column(db: apsw.Connection, sql: str, values: Any) -> list[Any]:
    """Runs a statement and returns the first value of each row."""
    return [row[0] for row in db.execute(sql, values)]
