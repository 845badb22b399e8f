"""Alerts in SQL: the methods of the store, and their statements."""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from parley.core.ports.alerts import Alert
from parley.stores.postgres.database import Connection
from parley.stores.postgres.pool import Pool
from parley.stores.postgres.rows import Now, now

T = TypeVar("T")
_KEPT = "100 * 86400.0"  # seconds: long after the end of the period
_ADD = f"""
WITH clock AS (SELECT {now(1)} AS now), forgotten AS (
  DELETE FROM parley.alerts USING clock WHERE created < now - {_KEPT} AND due IS NULL
)
INSERT INTO parley.alerts (id, subject, name, period, threshold, payload, tries, created, due)
SELECT $2, $3, $4, $5, $6, $7, 0, now, CASE WHEN $8 THEN now END FROM clock
ON CONFLICT DO NOTHING RETURNING id
"""
_IS_DUE = f"SELECT EXISTS (SELECT FROM parley.alerts WHERE due <= {now(1)})"
_TAKE = f"""
UPDATE parley.alerts SET due = {now(1)} + $2::float8, tries = tries + 1
WHERE id = (SELECT id FROM parley.alerts WHERE due <= {now(1)} ORDER BY due LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING id, subject, name, period, threshold, payload, tries
"""
_END = f"UPDATE parley.alerts SET due = {now(1)} + $2::float8 WHERE id = $3"


class _Store(Protocol):
    _pool: Pool

    def _clock(self) -> Now: ...

    def _read(self, work: Callable[[Connection], Awaitable[T]]) -> Awaitable[T]: ...


class AlertMethods:
    """Implements `parley.core.ports.AlertStore`, as a part of the store."""

    async def add_alert(self: _Store, alert: Alert, *, deliver: bool) -> bool:
        """Stores an alert, unless there is one for its period and threshold."""
        values = (alert.id, alert.subject, alert.limit, alert.period, alert.threshold, alert.payload, deliver)
        return await self._pool.run(lambda db: db.fetchval(_ADD, self._clock(), *values)) is not None

    async def take_alert(self: _Store, seconds: float) -> Alert | None:
        """Returns an alert that is due. Writes only if there is one."""
        if not await self._read(lambda db: db.fetchval(_IS_DUE, self._clock())):
            return None
        found = await self._pool.run(lambda db: db.fetchrow(_TAKE, self._clock(), seconds))
        return Alert(*found) if found else None

    async def end_alert(self: _Store, alert_id: str, retry_in: float | None) -> None:
        """Makes an alert due again, or ends its delivery."""
        await self._pool.run(lambda db: db.execute(_END, self._clock(), retry_in, alert_id))
