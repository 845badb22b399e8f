"""Limits in SQL."""

from collections.abc import Sequence
from typing import Any

from parley.core.ports import Charge, Reservation, RunningCall, Settlement
from parley.stores import buckets
from parley.stores.postgres.database import Connection
from parley.stores.postgres.rows import Now, now

_RESERVE = "SELECT granted, used, moment FROM parley.reserve($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
# As in the function parley.reserve, the commit does not wait for the disk.
_SETTLE = """
SELECT set_config('synchronous_commit', 'off', true), parley.settle($1, $2, $3, $4, $5, $6, $7)
"""
_SETTLE_WITH_TURN = "SELECT parley.settle($1, $2, $3, $4, $5, $6, $7)"
_CORRECT = "SELECT parley.correct($1, $2, $3, $4, $5, $6, $7)"
_RENEW = f"""
UPDATE parley.running_calls SET lease_expires = {now(1)} + $2
WHERE id IN (SELECT id FROM parley.running_calls WHERE id = ANY($3::text[]) ORDER BY id FOR UPDATE)
"""
_END_EXPIRED = f"""
DELETE FROM parley.running_calls WHERE id IN (
  SELECT id FROM parley.running_calls WHERE lease_expires <= {now(1)} LIMIT $2 FOR UPDATE SKIP LOCKED
) RETURNING started, reserved
"""


async def reserve(
    db: Connection, charges: Sequence[Charge], call: RunningCall | None, now: Now, lease_seconds: float
) -> Reservation:
    """Withdraws all charges, or none if one of them does not fit."""
    subjects, kinds, sizes, amounts, _ = charge_columns(charges)
    holder = (None,) * 5 if call is None else (call.id, call.key, call.account, lease_seconds, buckets.pack(charges))
    row = await db.fetchrow(_RESERVE, subjects, kinds, sizes, amounts, now, *holder)
    assert row is not None  # noqa: S101 - for the type checker
    remaining = (
        charge.limit - used - row["granted"] * charge.amount for charge, used in zip(charges, row["used"], strict=True)
    )
    return Reservation(row["granted"], tuple(remaining), row["moment"])


async def settle(db: Connection, settlement: Settlement, now: Now) -> None:
    """Ends the call and applies the difference between used and reserved amounts."""
    await db.fetchrow(_SETTLE, settlement.call_id, *charge_columns(settlement.charges), now)


async def settle_with_turn(db: Connection, settlement: Settlement, now: Now) -> None:
    """Settles in the transaction of a turn, whose commit waits for the disk."""
    await db.fetchrow(_SETTLE_WITH_TURN, settlement.call_id, *charge_columns(settlement.charges), now)


async def renew(db: Connection, call_ids: Sequence[str], now: Now, lease_seconds: float) -> None:
    """Extends the leases of running calls."""
    await db.execute(_RENEW, now, lease_seconds, call_ids)


async def end_expired(db: Connection, now: Now, limit: int) -> int:
    """Ends calls with an expired lease, returns their reservations, and returns the number of calls."""
    async with db.transaction():
        expired = await db.fetch(_END_EXPIRED, now, limit)
        for row in expired:
            await db.fetchrow(_CORRECT, row["started"], *charge_columns(buckets.unpack(row["reserved"])), now)
    return len(expired)


def charge_columns(charges: Sequence[Charge]) -> tuple[list[Any], ...]:
    """Returns the columns of charges that the functions of limits have as parameters."""
    return (
        [charge.subject for charge in charges],
        [charge.kind for charge in charges],
        [float(charge.limit) for charge in charges],
        [float(charge.amount) for charge in charges],
        [float(charge.reserved) for charge in charges],
    )
