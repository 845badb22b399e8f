"""The interface of a store of limits: buckets, calendar windows, running calls."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

REQUESTS = "requests"
TOKENS = "tokens"
CONCURRENT = "concurrent"
TOKENS_PER_DAY, TOKENS_PER_MONTH = "tokens_per_day", "tokens_per_month"
COST_PER_DAY, COST_PER_MONTH = "cost_per_day", "cost_per_month"
TOKEN_KINDS = frozenset({TOKENS, TOKENS_PER_DAY, TOKENS_PER_MONTH})
COST_KINDS = frozenset({COST_PER_DAY, COST_PER_MONTH})


@dataclass(frozen=True, slots=True)
class Charge:
    """An amount to withdraw from a limit.

    `requests` and `tokens` are token buckets that refill within a minute. `concurrent` is the number of running calls.
    The other kinds are sums of a calendar day or month in UTC.

    Attributes:
        subject: `key:ID` or `account:NAME`.
        kind: The kind of the limit.
        limit: The largest amount: of a minute, a day, a month, or at one time.
        amount: The amount to withdraw; at a settlement, the amount that was used.
        reserved: At a settlement, the amount that was withdrawn before.
    """

    subject: str
    kind: str
    limit: float
    amount: float
    reserved: float = 0


@dataclass(frozen=True, slots=True)
class RunningCall:
    """A call that holds reservations under a lease.

    Attributes:
        id: A unique id.
        key: The subject of its key, `key:ID`.
        account: The subject of its account, `account:NAME`.
    """

    id: str
    key: str
    account: str


@dataclass(frozen=True, slots=True)
class Reservation:
    """The result of a reservation.

    Attributes:
        granted: Whether all charges were withdrawn; otherwise none was.
        remaining: What remains of each limit, in the order of the charges; negative for an overdrawn one.
        now: The time of the calendar windows, in Unix seconds of the store's clock.
    """

    granted: bool
    remaining: tuple[float, ...]
    now: float = 0.0


@dataclass(frozen=True, slots=True)
class Settlement:
    """The end of a running call: its amounts replace what was reserved.

    Attributes:
        call_id: The id of the call.
        charges: The used amounts, each with its reservation.
    """

    call_id: str
    charges: Sequence[Charge]


class LimitStore(Protocol):
    """Stores the limits that all workers share. Every method raises StoreUnavailable if the store is unreachable."""

    async def reserve(
        self, charges: Sequence[Charge], call: RunningCall | None = None, lease_seconds: float = 0.0
    ) -> Reservation:
        """Withdraws all charges, or none if one of them exceeds what remains. Writes all in one transaction.

        Args:
            charges: The charges.
            call: Is stored with its charges until `settle`. If its lease expires before, it no longer counts as
                running, and the reaper returns its charges except requests. None for charges that are not settled.
            lease_seconds: The duration of the lease.
        """
        ...

    async def settle(self, settlement: Settlement) -> None:
        """Ends a running call and applies the difference between used and reserved amounts.

        A call whose lease has expired is charged what it used, because its reservation has been returned. Charges are
        applied even if they overdraw a limit; a refund never exceeds the limit. A day or a month that ended since the
        reservation is not charged.
        """
        ...

    async def renew_calls(self, call_ids: Iterable[str], lease_seconds: float) -> None:
        """Extends the leases of running calls; unknown ids are skipped."""
        ...
