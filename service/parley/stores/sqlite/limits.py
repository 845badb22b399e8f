"""Rate-limit buckets in SQL: each function is a job of the writer."""

from collections.abc import Sequence
from typing import Any

import apsw

from parley.core.ports import Charge, Reservation
from parley.stores import buckets

_FIND = "SELECT used, updated FROM buckets WHERE subject = ? AND kind = ?"
_STORE = """
INSERT INTO buckets (subject, kind, used, updated) VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET used = excluded.used, updated = excluded.updated
"""


def reserve(db: apsw.Connection, charges: Sequence[Charge], now: float) -> Reservation:
    """Withdraws all charges, or none if one of them does not fit. Charges of 0 are not written."""
    used = [_used(db, charge, now) for charge in charges]
    reservation = buckets.reserved(charges, used)
    if reservation.granted:
        for charge, before in zip(charges, used, strict=True):
            if charge.amount:
                _store(db, charge, before + charge.amount, now)
    return reservation


def settle(db: apsw.Connection, charges: Sequence[Charge], now: float) -> None:
    """Applies all charges, even if they overdraw a bucket."""
    for charge in charges:
        _store(db, charge, buckets.settled(charge, _used(db, charge, now)), now)


def _used(db: apsw.Connection, charge: Charge, now: float) -> float:
    found: Any = db.execute(_FIND, (charge.subject, charge.kind)).fetchall()
    if not found:
        return 0.0
    used, updated = found[0]
    return buckets.used_now(charge, used, updated, now)


def _store(db: apsw.Connection, charge: Charge, used: float, now: float) -> None:
    db.execute(_STORE, (charge.subject, charge.kind, used, now))
