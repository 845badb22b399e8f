"""Rate-limit buckets in SQL."""

from collections.abc import Sequence
from typing import Any

from parley.core.ports import Charge, Reservation
from parley.stores.postgres.database import Connection
from parley.stores.postgres.rows import Now, now

# The same arithmetic as in parley.stores.buckets. `excluded.used` is the amount of the charge.
SETTLE = """
  INSERT INTO parley.buckets AS bucket (subject, kind, used, updated, per_minute)
  SELECT subject, kind, amount, now, size
  FROM {rows}, unnest({subjects}::text[], {kinds}::text[], {sizes}::float8[], {amounts}::float8[])
    AS charge (subject, kind, size, amount)
  ORDER BY subject, kind
  ON CONFLICT (subject, kind) DO UPDATE SET
    used = greatest(0, excluded.used
      + greatest(0, bucket.used - abs(excluded.updated - bucket.updated) * excluded.per_minute / 60)),
    updated = excluded.updated, per_minute = excluded.per_minute
"""
# As in the function parley.reserve, the commit does not wait for the disk: a bucket matters for a minute only.
_SETTLE = f"""
WITH clock AS MATERIALIZED (SELECT {now(1)} AS now, set_config('synchronous_commit', 'off', true))
{SETTLE.format(rows="clock", subjects="$2", kinds="$3", sizes="$4", amounts="$5")}
"""
_RESERVE = "SELECT granted, used FROM parley.reserve($1, $2, $3, $4, $5)"


async def reserve(db: Connection, charges: Sequence[Charge], now: Now) -> Reservation:
    """Withdraws all charges, or none if one of them does not fit."""
    granted_row = await db.fetchrow(_RESERVE, *_columns(charges), now)
    assert granted_row is not None  # noqa: S101 - for the type checker
    remaining = (
        charge.per_minute - used - granted_row["granted"] * charge.amount
        for charge, used in zip(charges, granted_row["used"], strict=True)
    )
    return Reservation(granted_row["granted"], tuple(remaining))


async def settle(db: Connection, charges: Sequence[Charge], now: Now) -> None:
    """Applies all charges, even if they overdraw a bucket."""
    await db.execute(_SETTLE, now, *settle_columns(charges))


def settle_columns(charges: Sequence[Charge]) -> tuple[list[Any], ...]:
    """Returns the parameters of `SETTLE`: subjects, kinds, sizes and amounts, with each bucket once."""
    merged: dict[tuple[str, str], Charge] = {}
    for charge in charges:
        bucket = (charge.subject, charge.kind)
        amount = charge.amount + (merged[bucket].amount if bucket in merged else 0)
        merged[bucket] = Charge(*bucket, charge.per_minute, amount)
    return _columns(list(merged.values()))


def _columns(charges: Sequence[Charge]) -> tuple[list[Any], ...]:
    return (
        [charge.subject for charge in charges],
        [charge.kind for charge in charges],
        [float(charge.per_minute) for charge in charges],
        [float(charge.amount) for charge in charges],
    )
