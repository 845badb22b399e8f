"""Delivers stored alerts to their receiver, again until it accepts them, whatever worker or process does it."""

import random
from collections.abc import Sequence

import structlog

from parley.core.background import PeriodicTask
from parley.core.ports.alerts import Alert, AlertReceiver, AlertStore, ReceiverGoneError

_POLL_SECONDS = 2.0
_LEASE_SECONDS = 60.0  # after which another worker repeats a delivery whose worker has crashed
# Delays between tries, similar to those that Standard Webhooks recommends: 30 hours in all.
_DELAYS = (5.0, 30.0, 300.0, 1800.0, 7200.0, 18000.0, 36000.0, 43200.0)
_JITTER = 0.1

_log = structlog.get_logger()


class AlertDelivery:
    """Delivers the alerts of all workers that are due. One for each worker.

    Attributes:
        undelivered: The number of alerts that this worker has given up.
    """

    def __init__(
        self,
        store: AlertStore,
        receiver: AlertReceiver,
        delays: Sequence[float] = _DELAYS,
        poll_seconds: float = _POLL_SECONDS,
    ) -> None:
        """Creates a delivery that does nothing before `start`.

        Args:
            store: Holds the alerts.
            receiver: Receives them.
            delays: The seconds before each retry; after the last one the alert is given up.
            poll_seconds: The pause between two searches for alerts that are due.
        """
        self._store = store
        self._receiver = receiver
        self._delays = delays
        self.undelivered = 0
        self._task = PeriodicTask("alert delivery", self.deliver, poll_seconds, jitter=_JITTER)

    def start(self) -> None:
        """Starts the deliveries."""
        self._task.start()

    async def close(self) -> None:
        """Stops the deliveries. One that is interrupted is repeated later."""
        await self._task.stop()

    async def deliver(self) -> None:
        """Delivers all alerts that are due. Raises StoreUnavailable."""
        while (alert := await self._store.take_alert(_LEASE_SECONDS)) is not None:
            await self._store.end_alert(alert.id, await self._retry_delay(alert))

    async def _retry_delay(self, alert: Alert) -> float | None:
        """Delivers an alert once. Returns the seconds until the next try; None if there is none."""
        try:
            reason = await self._receiver.send(alert)
        except ReceiverGoneError as error:
            self._give_up(alert, str(error))
            return None
        if reason is None:
            _log.info("alert delivered", id=alert.id, tries=alert.tries)
            return None
        if alert.tries > len(self._delays):
            self._give_up(alert, reason)
            return None
        delay = self._delays[alert.tries - 1] * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - no secret
        _log.warning("alert not accepted", id=alert.id, cause=reason, tries=alert.tries, retry_in=round(delay, 1))
        return delay

    def _give_up(self, alert: Alert, cause: str) -> None:
        """Counts and logs an alert that is not delivered."""
        self.undelivered += 1
        _log.error("alert not delivered", id=alert.id, cause=cause, tries=alert.tries)
