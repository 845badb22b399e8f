"""The reaper: clears turns of crashed workers, expired sessions, keys and answers, and rows of deleted sessions."""

import structlog

from parley.core.background import PeriodicTask
from parley.core.ports import SessionStore

_INTERVAL_SECONDS = 2.0
_JITTER = 0.5
_CLAIM_SECONDS = 24 * 3600.0
_MAX_PER_RUN = 50  # of each kind per transaction, so that other transactions wait only briefly

_log = structlog.get_logger()


class Reaper:
    """Runs the reaper periodically. Every worker runs one.

    Idempotency keys and their replies are kept for a day. The store measures ages by its own clock.
    """

    def __init__(self, store: SessionStore, ttl: float | None, interval_seconds: float = _INTERVAL_SECONDS) -> None:
        """Creates a reaper that is not started.

        Args:
            store: The store to clear.
            ttl: The seconds after its latest turn for which a session is kept; None keeps all.
            interval_seconds: The pause between two runs.
        """
        self._store = store
        self._ttl = ttl
        self._task = PeriodicTask("the reaper", self.reap, interval_seconds, _JITTER)

    def start(self) -> None:
        """Starts the periodic runs."""
        self._task.start()

    async def stop(self) -> None:
        """Stops the periodic runs."""
        await self._task.stop()

    async def reap(self) -> None:
        """Clears everything that is due and logs the counts. Raises StoreUnavailable."""
        while True:
            reaped = await self._store.reap(session_age=self._ttl, claim_age=_CLAIM_SECONDS, limit=_MAX_PER_RUN)
            counts = {
                "crashed": reaped.crashed,
                "sessions": reaped.sessions,
                "claims": reaped.claims,
                "answers": reaped.answers,
            }
            if any(counts.values()):
                _log.info("reaped", **counts)
            more = await self._store.purge()
            if max(counts.values()) < _MAX_PER_RUN and not more:
                return
