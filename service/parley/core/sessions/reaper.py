"""Clears what nothing else does: turns of dead workers, sessions and kept answers past their time, deleted rows."""

import structlog

from parley.core.background import PeriodicTask
from parley.core.ports import SessionStore

_INTERVAL_SECONDS = 2.0
_JITTER = 0.5
_CLAIM_SECONDS = 24 * 3600.0
_MAX_PER_RUN = 50  # of each kind in one transaction, so that nobody waits long for it

_log = structlog.get_logger()


class Reaper:
    """Reaps, for as long as it runs. Every worker has one; what one has cleared the others do not find.

    A session is kept for `ttl` seconds after its latest turn, for ever where that is None; a kept answer for a day. The
    store measures ages by its own time.
    """

    def __init__(self, store: SessionStore, ttl: float | None, interval_seconds: float = _INTERVAL_SECONDS) -> None:
        self._store = store
        self._ttl = ttl
        self._task = PeriodicTask("the reaper", self.reap, interval_seconds, _JITTER)

    def start(self) -> None:
        """Begins to reap."""
        self._task.start()

    async def stop(self) -> None:
        """Reaps no more."""
        await self._task.stop()

    async def reap(self) -> None:
        """Clears all that is due, and logs how much that was. Raises StoreUnavailable."""
        while True:
            reaped = await self._store.reap(session_age=self._ttl, claim_age=_CLAIM_SECONDS, limit=_MAX_PER_RUN)
            counts = {"crashed": reaped.crashed, "sessions": reaped.sessions, "claims": reaped.claims}
            if any(counts.values()):
                _log.info("reaped", **counts)
            more = await self._store.purge()
            if max(counts.values()) < _MAX_PER_RUN and not more:
                return
