"""Limits in SQL: each function is a job of the writer, or part of one."""

from collections.abc import Iterable, Sequence
from typing import Any

import apsw

from parley.core.ports import Charge, Reservation, RunningCall, Settlement
from parley.core.ports.limits import CONCURRENT
from parley.stores import buckets
from parley.stores.sqlite.clock import FileClock, Times
from parley.stores.sqlite.rows import rows

_FIND = "SELECT subject, kind, used, updated FROM buckets WHERE subject IN ({})"
_STORE = """
INSERT INTO buckets (subject, kind, used, updated) VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET used = excluded.used, updated = excluded.updated
"""
_RUNNING_OF_KEY = "SELECT count(*) FROM running_calls WHERE key = ? AND lease_expires > ?"
_RUNNING_OF_ACCOUNT = "SELECT count(*) FROM running_calls WHERE account = ? AND lease_expires > ?"
_START = """
INSERT INTO running_calls (id, key, account, started, lease_expires, reserved) VALUES (?, ?, ?, ?, ?, ?)
"""
_END = "DELETE FROM running_calls WHERE id = ? RETURNING started"
_RENEW = "UPDATE running_calls SET lease_expires = ? WHERE id = ?"
_EXPIRED = """
DELETE FROM running_calls WHERE id IN (SELECT id FROM running_calls WHERE lease_expires <= ? LIMIT ?)
RETURNING started, reserved
"""

_BATCH = 100
_LONG = 1e9  # seconds, longer than any lease


def reserve(db: apsw.Connection, charges: Sequence[Charge], call: RunningCall | None, times: Times) -> Reservation:
    """Withdraws all charges, or none if one of them does not fit. Charges of 0 are not written."""
    used = _used(db, charges, times)
    reservation = buckets.reserved(charges, used, times.wall)
    if reservation.granted:
        pairs = zip(charges, used, strict=True)
        _store(db, [(charge, before + charge.amount) for charge, before in pairs if charge.amount], times)
        if call is not None:
            values = (call.id, call.key, call.account, times.wall, times.lease_expires, buckets.pack(charges))
            db.execute(_START, values)
    return reservation


def settle(db: apsw.Connection, settlement: Settlement, times: Times) -> None:
    """Ends the call and applies the difference between used and reserved amounts."""
    ended = rows(db, _END, (settlement.call_id,))
    correct(db, settlement.charges, ended[0][0] if ended else None, times)


def correct(db: apsw.Connection, charges: Sequence[Charge], started: float | None, times: Times) -> None:
    """Applies the corrections of charges, even if they overdraw a limit."""
    used = _used(db, charges, times)
    changes = [(one, buckets.correction(one, started=started, now=times.wall)) for one in charges]
    pairs = zip(changes, used, strict=True)
    _store(db, [(charge, max(0.0, before + change)) for (charge, change), before in pairs if change], times)


def renew(db: apsw.Connection, call_ids: Iterable[str], expires: float) -> None:
    """Extends the leases of running calls."""
    db.executemany(_RENEW, [(expires, call_id) for call_id in call_ids])


def end_expired(db: apsw.Connection, times: Times, limit: int) -> int:
    """Ends calls with an expired lease, returns their reservations, and returns the number of calls."""
    expired = rows(db, _EXPIRED, (times.lease, limit))
    for started, reserved in expired:
        correct(db, buckets.unpack(reserved), started, times)
    return len(expired)


def end_all(db: apsw.Connection) -> None:
    """Ends all calls with an expired lease, also those from before a reboot."""
    clock = FileClock()
    wall = clock.wall()
    lease = min(clock.lease_time(db), wall + _LONG)  # infinite after a reboot, which is no time for a bucket
    while end_expired(db, Times(wall, lease), _BATCH):
        pass


def _used(db: apsw.Connection, charges: Sequence[Charge], times: Times) -> list[float]:
    subjects = sorted({charge.subject for charge in charges})
    read = rows(db, _FIND.format(", ".join("?" * len(subjects))), subjects)
    found = {(subject, kind): (used, updated) for subject, kind, used, updated in read}
    return [_used_now(db, charge, found.get((charge.subject, charge.kind)), times) for charge in charges]


def _used_now(db: apsw.Connection, charge: Charge, row: tuple[Any, Any] | None, times: Times) -> float:
    if charge.kind == CONCURRENT:
        counted = _RUNNING_OF_KEY if charge.subject.startswith("key:") else _RUNNING_OF_ACCOUNT
        return float(rows(db, counted, (charge.subject, times.lease))[0][0])
    return buckets.used_now(charge, *row, _clock(charge, times)) if row else 0.0


def _store(db: apsw.Connection, changed: Iterable[tuple[Charge, float]], times: Times) -> None:
    values = [(one.subject, one.kind, used, _clock(one, times)) for one, used in changed if one.kind != CONCURRENT]
    db.executemany(_STORE, values)


def _clock(charge: Charge, times: Times) -> float:
    """Returns the time by which a limit counts: days and months follow the wall clock."""
    return times.wall if buckets.is_calendar(charge.kind) else times.lease
