"""Usage in SQL: the methods of the store, and their statements."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeVar

from parley.core.ports.usage import COUNTS, UsageCounts, UsageKey, UsageQuery, UsageRow
from parley.stores import usage
from parley.stores.postgres.database import Connection
from parley.stores.postgres.pool import Pool
from parley.stores.postgres.rows import Now, now

T = TypeVar("T")
_COLUMNS = (*usage.KEYS, *COUNTS)
_TYPES = {"day": "int", **dict.fromkeys(COUNTS, "bigint")}
_ARRAYS = ", ".join(f"${number}::{_TYPES.get(name, 'text')}[]" for number, name in enumerate(_COLUMNS, 4))
# The rows are locked in one order, so that workers that add to the same rows do not deadlock.
_ADD = f"""
WITH clock AS (SELECT {now(3)} AS now), forgotten AS (
  DELETE FROM parley.usage_writers USING clock WHERE $2::bigint = 1 AND updated < now - {usage.WRITER_SECONDS}
), fresh AS (
  INSERT INTO parley.usage_writers AS known (writer, batch, updated) SELECT $1::text, $2::bigint, now FROM clock
  ON CONFLICT (writer) DO UPDATE SET batch = excluded.batch, updated = excluded.updated
  WHERE known.batch < excluded.batch
  RETURNING batch
)
INSERT INTO parley.usage AS known ({", ".join(_COLUMNS)})
SELECT added.* FROM fresh, unnest({_ARRAYS}) AS added ({", ".join(_COLUMNS)})
ORDER BY {", ".join(f"added.{name}" for name in usage.KEYS)}
ON CONFLICT ({", ".join(usage.KEYS)}) DO UPDATE SET {usage.ADD}
"""


class _Store(Protocol):
    _pool: Pool

    def _clock(self) -> Now: ...

    def _read(self, work: Callable[[Connection], Awaitable[T]]) -> Awaitable[T]: ...


class UsageMethods:
    """Implements `parley.core.ports.UsageStore`, as a part of the store."""

    async def add_usage(self: _Store, writer: str, batch: int, usage: Mapping[UsageKey, UsageCounts]) -> None:
        """Adds the counts, once for each batch."""
        await self._pool.run(lambda db: add(db, writer, batch, usage, self._clock()))

    async def usage(self: _Store, query: UsageQuery) -> list[UsageRow]:
        """Sums up usage."""
        return await self._read(lambda db: read(db, query))


async def add(db: Connection, writer: str, batch: int, counts: Mapping[UsageKey, UsageCounts], now: Now) -> None:
    """Adds the counts, unless the batch is stored already."""
    rows = [(*key, *(getattr(row, name) for name in COUNTS)) for key, row in counts.items()]
    await db.execute(_ADD, writer, batch, now, *map(list, zip(*rows, strict=True)))


async def read(db: Connection, query: UsageQuery) -> list[UsageRow]:
    """Sums up usage."""
    statement, values = usage.select(query, "parley.usage", lambda number: f"${number}")
    return usage.rows(query, map(tuple, await db.fetch(statement, *values)))
