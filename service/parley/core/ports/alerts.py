"""The interfaces of a store of alerts and of their receiver."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Alert:
    """A notification that a threshold of a limit was reached. There is one for each period and threshold.

    Attributes:
        id: The id, which identifies repeated deliveries.
        subject: `account:NAME` or `account:NAME/key:ID`.
        limit: The name of the limit, such as `cost_per_month`.
        period: The day or the month in UTC: `2026-11-26` or `2026-11`.
        threshold: The share of the limit.
        payload: The text to deliver.
        tries: How often delivery was begun.
    """

    id: str
    subject: str
    limit: str
    period: str
    threshold: float
    payload: str
    tries: int = 0


class AlertStore(Protocol):
    """Stores alerts for all workers. Every method raises StoreUnavailable if the store is unreachable."""

    async def add_alert(self, alert: Alert, *, deliver: bool) -> bool:
        """Stores an alert, unless there is one for its period and threshold.

        Args:
            alert: The alert.
            deliver: Whether `take_alert` returns it.

        Returns:
            Whether the alert is new.
        """
        ...

    async def take_alert(self, seconds: float) -> Alert | None:
        """Returns an alert that is due, which then is due again after so many seconds; None if none is due."""
        ...

    async def end_alert(self, alert_id: str, retry_in: float | None) -> None:
        """Makes an alert due again after so many seconds; None ends its delivery."""
        ...


class AlertReceiver(Protocol):
    """Receives alerts."""

    async def send(self, alert: Alert) -> str | None:
        """Delivers an alert.

        Returns:
            None if the receiver has accepted it, else the reason.

        Raises:
            ReceiverGoneError: The receiver wants no more alerts.
        """
        ...


class ReceiverGoneError(Exception):
    """The receiver wants no more alerts."""
