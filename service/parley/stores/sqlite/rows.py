"""Statements that run to completion."""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import apsw

_FEW_ROWS = 32
_MANY_ROWS = 500


def rows(db: apsw.Connection, sql: str, values: Any) -> list[tuple[Any, ...]]:
    """Runs a statement and returns all rows."""
    return db.execute(sql, values).fetchall()


def column(db: apsw.Connection, sql: str, values: Any) -> list[Any]:
    """Runs a statement and returns the first value of each row."""
    return [row[0] for row in db.execute(sql, values)]


class Insert:
    """Adds rows with few statements.

    Every statement releases the interpreter lock and reacquires it while the database is locked.

    Args:
        target: The table and the columns.
        values: The values of one row.
    """

    def __init__(self, target: str, values: str) -> None:
        self._sql = [f"INSERT INTO {target} VALUES " + ", ".join([values] * number) for number in range(_FEW_ROWS + 1)]
        self._many = f"INSERT INTO {target} VALUES " + ", ".join([values] * _MANY_ROWS)

    def run(self, db: apsw.Connection, added: Sequence[Sequence[Any]]) -> None:
        """Adds the rows."""
        start = 0
        while rest := len(added) - start:
            number, sql = (_MANY_ROWS, self._many) if rest >= _MANY_ROWS else self._few(rest)
            db.execute(sql, list(chain.from_iterable(added[start : start + number])))
            start += number

    def _few(self, rest: int) -> tuple[int, str]:
        number = min(rest, _FEW_ROWS)
        return number, self._sql[number]
