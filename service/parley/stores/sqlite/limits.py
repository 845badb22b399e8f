"""Limits in SQL: each function is one job of the writer."""

from collections.abc import Sequence
from typing import Any

import apsw

from parley.core.ports import Charge, Reservation
from parley.stores import buckets

_FIND = "SELECT used, updated FROM buckets WHERE subject = ? AND kind = ?"
_KEEP = """
INSERT INTO buckets (subject, kind, used, updated) VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET used = excluded.used, updated = excluded.updated
"""


def reserve(db: apsw.Connection, charges: Sequence[Charge], now: float) -> Reservation:
    """Takes all charges where every one fits, else none. What changes nothing is not written."""
    used = [_used(db, charge, now) for charge in charges]
    reservation = buckets.reserved(charges, used)
    if reservation.granted:
        for charge, before in zip(charges, used, strict=True):
            if charge.amount:
                _keep(db, charge, before + charge.amount, now)
    return reservation


def settle(db: apsw.Connection, charges: Sequence[Charge], now: float) -> None:
    """Takes or gives back what each charge says, whether it fits or not."""
    for charge in charges:
        _keep(db, charge, buckets.settled(charge, _used(db, charge, now)), now)


def _used(db: apsw.Connection, charge: Charge, now: float) -> float:
    found: Any = db.execute(_FIND, (charge.subject, charge.kind)).fetchall()
    if not found:
        return 0.0
    used, updated = found[0]
    return buckets.used_now(charge, used, updated, now)


def _keep(db: apsw.Connection, charge: Charge, used: float, now: float) -> None:
    db.execute(_KEEP, (charge.subject, charge.kind, used, now))
