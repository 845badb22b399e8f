"""The arithmetic of limits.

A row stores the amount used at a time. In the bucket of a minute the used amount decreases at the rate of the limit,
down to 0. In a calendar window it stays until the day or the month ends, in UTC.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import orjson

from parley.core.ports import Charge, Reservation
from parley.core.ports.limits import CONCURRENT, REQUESTS

_ROUNDING = 1e-6  # tolerance for the rounding of float sums: of a request or token, or of the limit if it is below 1
_DAY_SECONDS = 86_400


def is_calendar(kind: str) -> bool:
    """Returns whether the limit is a sum of a calendar day or month."""
    return kind.endswith(("_day", "_month"))


def period(kind: str, now: float) -> int:
    """Returns the number of the day or the month of a time in Unix seconds, in UTC."""
    if kind.endswith("_day"):
        return int(now // _DAY_SECONDS)
    date = datetime.fromtimestamp(now, UTC)
    return date.year * 12 + date.month


def used_now(charge: Charge, used: float, updated: float, now: float) -> float:
    """Returns the used amount at `now`.

    A backward step of the clock counts as elapsed time, because otherwise a bucket could stay full.

    Args:
        charge: Names the limit.
        used: The stored amount.
        updated: The time of `used` in Unix seconds.
        now: The current time in Unix seconds.
    """
    if is_calendar(charge.kind):
        return used if period(charge.kind, updated) == period(charge.kind, now) else 0.0
    return max(0.0, used - abs(now - updated) * charge.limit / 60)


def reserved(charges: Sequence[Charge], used: Sequence[float], now: float = 0.0) -> Reservation:
    """Returns whether all charges fit into their limits, and what remains of each afterwards. An amount of 0 fits."""
    pairs = list(zip(charges, used, strict=True))
    granted = all(
        before + charge.amount <= charge.limit + _ROUNDING * min(1.0, charge.limit)
        for charge, before in pairs
        if charge.amount
    )
    return Reservation(granted, tuple(charge.limit - before - granted * charge.amount for charge, before in pairs), now)


def correction(charge: Charge, *, started: float | None, now: float) -> float:
    """Returns the amount by which a settlement changes the used amount.

    Args:
        charge: The used and the reserved amount.
        started: The time of the reservation; None if it has been returned already.
        now: The current time.
    """
    if started is None:
        return charge.amount
    if is_calendar(charge.kind) and period(charge.kind, started) != period(charge.kind, now):
        return 0.0
    return charge.amount - charge.reserved


def pack(charges: Iterable[Charge]) -> str:
    """Serializes the charges that are returned if their call crashes."""
    kept = [(one.subject, one.kind, one.limit, one.amount) for one in charges if one.kind not in {REQUESTS, CONCURRENT}]
    return orjson.dumps(kept).decode()


def unpack(stored: str) -> list[Charge]:
    """Returns the charges that `pack` serialized, as settlements of calls that used nothing."""
    return [Charge(subject, kind, limit, 0, amount) for subject, kind, limit, amount in orjson.loads(stored)]
