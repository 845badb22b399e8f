"""What the core needs of a store to count what is used of limits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Charge:
    """What a call takes from a bucket, which holds the amount of a minute and fills up evenly.

    `subject` and `kind` name the bucket: `key:ID` or `account:NAME`, `requests` or `tokens`; `per_minute` is its size.
    A negative `amount` gives back.
    """

    subject: str
    kind: str
    per_minute: int
    amount: int


@dataclass(frozen=True, slots=True)
class Reservation:
    """Whether a call was let in, and what is left in each bucket: less than nothing where it has overdrawn."""

    granted: bool
    remaining: tuple[float, ...]


class LimitStore(Protocol):
    """Counts what is used of limits, for all workers together. Raises `StoreUnavailable`."""

    async def reserve(self, charges: Sequence[Charge]) -> Reservation:
        """Takes all charges from their buckets, or none where one of them does not fit."""
        ...

    async def settle(self, charges: Sequence[Charge]) -> None:
        """Takes or gives back the difference to what was reserved: a bucket never refuses, and never overflows."""
        ...
