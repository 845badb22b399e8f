"""Alerts in SQL: the methods of the store, and functions that are jobs of the writer or reads."""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import apsw

from parley.core.ports.alerts import Alert
from parley.stores.sqlite.clock import FileClock
from parley.stores.sqlite.rows import rows
from parley.stores.sqlite.writer import Writer

T = TypeVar("T")
KEPT_SECONDS = 100 * 86400.0
"""The age at which an alert is forgotten, long after the end of its period."""

_FORGET = "DELETE FROM alerts WHERE created < ? AND due IS NULL"
_ADD = """
INSERT INTO alerts (id, subject, name, period, threshold, payload, tries, created, due)
VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?)
ON CONFLICT DO NOTHING RETURNING id
"""
_IS_DUE = "SELECT 1 FROM alerts WHERE due <= ? LIMIT 1"
_TAKE = """
UPDATE alerts SET due = ? + ?, tries = tries + 1 WHERE id = (SELECT id FROM alerts WHERE due <= ? ORDER BY due LIMIT 1)
RETURNING id, subject, name, period, threshold, payload, tries
"""
_END = "UPDATE alerts SET due = ? + ? WHERE id = ?"


class _Store(Protocol):
    _clock: FileClock
    _writer: Writer

    def _read(self, work: Callable[[apsw.Connection], T]) -> Awaitable[T]: ...


class AlertMethods:
    """Implements `parley.core.ports.AlertStore`, as a part of the store."""

    async def add_alert(self: _Store, alert: Alert, *, deliver: bool) -> bool:
        """Stores an alert, unless there is one for its period and threshold."""
        return await self._writer.submit(lambda db: _add(db, alert, self._clock.wall(), deliver=deliver))

    async def take_alert(self: _Store, seconds: float) -> Alert | None:
        """Returns an alert that is due. Writes only if there is one."""
        if not await self._read(lambda db: rows(db, _IS_DUE, (self._clock.wall(),))):
            return None
        return await self._writer.submit(lambda db: _take(db, self._clock.wall(), seconds))

    async def end_alert(self: _Store, alert_id: str, retry_in: float | None) -> None:
        """Makes an alert due again, or ends its delivery."""
        await self._writer.submit(lambda db: rows(db, _END, (self._clock.wall(), retry_in, alert_id)))


def _add(db: apsw.Connection, alert: Alert, now: float, *, deliver: bool) -> bool:
    db.execute(_FORGET, (now - KEPT_SECONDS,))
    values = (alert.id, alert.subject, alert.limit, alert.period, alert.threshold, alert.payload)
    return bool(rows(db, _ADD, (*values, now, now if deliver else None)))


def _take(db: apsw.Connection, now: float, seconds: float) -> Alert | None:
    found = rows(db, _TAKE, (now, seconds, now))
    return Alert(*found[0]) if found else None
