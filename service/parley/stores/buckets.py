"""The arithmetic of rate-limit buckets.

A row stores the amount used at a time. The used amount decreases at the rate of the limit, down to 0.
"""

from collections.abc import Sequence

from parley.core.ports import Charge, Reservation

_ROUNDING = 1e-6  # tolerance for the rounding of float sums, far below one request or token


def used_now(charge: Charge, used: float, updated: float, now: float) -> float:
    """Returns the amount of the bucket in use at `now`.

    A backward step of the clock counts as elapsed time, because otherwise the bucket could stay full.

    Args:
        charge: Names the bucket and its rate.
        used: The stored amount.
        updated: The time of `used` in Unix seconds.
        now: The current time in Unix seconds.
    """
    return max(0.0, used - abs(now - updated) * charge.per_minute / 60)


def reserved(charges: Sequence[Charge], used: Sequence[float]) -> Reservation:
    """Returns whether all charges fit into their buckets, and what remains in each afterwards."""
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
    """Returns the used amount after a correction, at least 0."""
    return max(0.0, used + charge.amount)
