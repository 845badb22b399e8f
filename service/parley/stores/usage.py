"""The SQL of usage that both stores share, except for the form of parameters."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from parley.core.ports.usage import COUNTS, UsageCounts, UsageQuery, UsageRow

KEYS = ("account", "day", "key", "model", "target")
WRITER_SECONDS = 86400.0
"""The age at which a worker's last batch number is forgotten."""

_SUMS = ", ".join(f"coalesce(sum({name}), 0)" for name in COUNTS)
ADD = ", ".join(f"{name} = known.{name} + excluded.{name}" for name in COUNTS)
"""The assignments that add a row to a stored one, which is named `known`."""


def select(query: UsageQuery, table: str, parameter: Callable[[int], str]) -> tuple[str, list[Any]]:
    """Returns the statement and its parameters.

    Args:
        query: What to sum up.
        table: The table's name.
        parameter: Returns the SQL of the parameter with a number from 1.
    """
    values: list[Any] = []

    def bind(value: Any) -> str:
        values.append(value)
        return parameter(len(values))

    bounds = (("account =", query.account), ("key =", query.key), ("day >=", query.since), ("day <=", query.until))
    conditions = [f"{comparison} {bind(value)}" for comparison, value in bounds if value is not None]
    if query.models:
        starts = [model[:-1] for model in query.models if model.endswith("*")]
        begins = [f"substr(model, 1, {len(start)}) = {bind(start)}" for start in starts]
        listed = f"model IN ({', '.join(map(bind, query.models))})"
        conditions.append(f"({' OR '.join([*begins, listed])})")
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    names = ", ".join(query.group)
    grouped = f"GROUP BY {names} ORDER BY {names}" if names else ""
    selected = f"{names}, {_SUMS}" if names else _SUMS
    return f"SELECT {selected} FROM {table} {where} {grouped} LIMIT {bind(query.limit)}", values


def rows(query: UsageQuery, found: Iterable[Sequence[Any]]) -> list[UsageRow]:
    """Returns the rows of the statement."""
    split = len(query.group)
    return [UsageRow(tuple(row[:split]), UsageCounts(*map(int, row[split:]))) for row in found]
