"""Usage in SQL: the methods of the store, and functions that are jobs of the writer or reads."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeVar

import apsw

from parley.core.ports.usage import COUNTS, UsageCounts, UsageKey, UsageQuery, UsageRow
from parley.stores import usage
from parley.stores.sqlite.clock import FileClock
from parley.stores.sqlite.writer import Writer

T = TypeVar("T")

_FORGET = "DELETE FROM usage_writers WHERE updated < ?"
_FRESH = """
INSERT INTO usage_writers AS known (writer, batch, updated) VALUES (?, ?, ?)
ON CONFLICT DO UPDATE SET batch = excluded.batch, updated = excluded.updated WHERE known.batch < excluded.batch
RETURNING batch
"""
_COLUMNS = (*usage.KEYS, *COUNTS)
_ADD = f"""
INSERT INTO usage AS known ({", ".join(_COLUMNS)}) VALUES ({", ".join("?" for _ in _COLUMNS)})
ON CONFLICT DO UPDATE SET {usage.ADD}
"""


class _Store(Protocol):
    _clock: FileClock
    _writer: Writer

    def _read(self, work: Callable[[apsw.Connection], T]) -> Awaitable[T]: ...


class UsageMethods:
    """Implements `parley.core.ports.UsageStore`, as a part of the store."""

    async def add_usage(self: _Store, writer: str, batch: int, usage: Mapping[UsageKey, UsageCounts]) -> None:
        """Adds the counts, once for each batch."""
        await self._writer.submit(lambda db: add(db, writer, batch, usage, self._clock.wall()))

    async def usage(self: _Store, query: UsageQuery) -> list[UsageRow]:
        """Sums up usage."""
        return await self._read(lambda db: read(db, query))


def add(db: apsw.Connection, writer: str, batch: int, counts: Mapping[UsageKey, UsageCounts], now: float) -> None:
    """Adds the counts, unless the batch is stored already."""
    if batch == 1:
        db.execute(_FORGET, (now - usage.WRITER_SECONDS,))
    if db.execute(_FRESH, (writer, batch, now)).fetchall():
        db.executemany(_ADD, [(*key, *(getattr(row, name) for name in COUNTS)) for key, row in counts.items()])


def read(db: apsw.Connection, query: UsageQuery) -> list[UsageRow]:
    """Sums up usage."""
    statement, values = usage.select(query, "usage", lambda number: f"?{number}")
    return usage.rows(query, db.execute(statement, values))
