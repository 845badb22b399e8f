"""The arithmetic of limits a minute, which every store does on its own rows.

A row says what was used at a time. What is used drains by the limit's amount a minute, and never below nothing.
"""

from collections.abc import Sequence

from parley.core.ports import Charge, Reservation

_ROUNDING = 1e-6  # what a sum of floats may be off, and no request or token


def used_now(charge: Charge, used: float, updated: float, now: float) -> float:
    """Returns what is still used of the bucket. A clock that was set back drains it too, else it might stay full."""
    return max(0.0, used - abs(now - updated) * charge.per_minute / 60)


def reserved(charges: Sequence[Charge], used: Sequence[float]) -> Reservation:
    """Tells whether every charge fits beside what is used, and how the buckets stand after it."""
    granted = all(
        before + charge.amount <= charge.per_minute + _ROUNDING for charge, before in zip(charges, used, strict=True)
    )
    return Reservation(
        granted,
        tuple(
            charge.per_minute - before - granted * charge.amount for charge, before in zip(charges, used, strict=True)
        ),
    )


def settled(charge: Charge, used: float) -> float:
    """Returns what is used after a correction, which may take back what has drained meanwhile."""
    return max(0.0, used + charge.amount)
