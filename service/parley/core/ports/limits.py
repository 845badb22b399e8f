"""The interface of a store of rate-limit buckets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Charge:
    """An amount to withdraw from a token bucket, which refills at a constant rate.

    Attributes:
        subject: `key:ID` or `account:NAME`.
        kind: `requests` or `tokens`.
        per_minute: The bucket's capacity, which refills within a minute.
        amount: The amount to withdraw; a negative amount is a refund.
    """

    subject: str
    kind: str
    per_minute: int
    amount: int


@dataclass(frozen=True, slots=True)
class Reservation:
    """The result of a reservation.

    Attributes:
        granted: Whether all charges were withdrawn; otherwise none was.
        remaining: What remains in each bucket, in the order of the charges; negative for an overdrawn bucket.
    """

    granted: bool
    remaining: tuple[float, ...]


class LimitStore(Protocol):
    """Stores the buckets that all workers share. Every method raises StoreUnavailable if the store is unreachable."""

    async def reserve(self, charges: Sequence[Charge]) -> Reservation:
        """Withdraws all charges, or none if one of them exceeds what remains."""
        ...

    async def settle(self, charges: Sequence[Charge]) -> None:
        """Applies the difference between actual and reserved use.

        Charges are applied even if they overdraw a bucket; a refund never exceeds the bucket's capacity.
        """
        ...
