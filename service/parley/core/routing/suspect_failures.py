"""Suspect failures of one target: failures that a caller's request may have caused, such as a status of 500.

After five suspect failures in a row, without a success of any account in between, the target is blocked for that
account: only one of its calls in ten seconds is admitted. Other accounts are not affected until a second account gets a
suspect failure. From then on, and until the next success, each one counts as a failure in the target's circuit breaker.
"""

from parley.core.errors import ParleyError, UpstreamRejected
from parley.core.routing.breaker import CONSECUTIVE_FAILURES, Clock

PROBE_INTERVAL = 10.0
"""Seconds between two calls of a blocked account."""


class SuspectFailures:
    """The suspect failures since the target's latest success, by account."""

    __slots__ = ("_cause", "_clock", "_counts", "_due")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counts: dict[str, int] = {}
        self._due: dict[str, float] = {}
        self._cause: type[ParleyError] | None = None

    def remaining_delay(self, account: str) -> float:
        """Returns after how many seconds a call of this account is admitted; 0 for now."""
        due = self._due.get(account) if self._due else None
        return 0.0 if due is None else max(0.0, due - self._clock())

    def try_acquire_permit(self, account: str) -> bool:
        """Returns whether a call is admitted. A blocked account gets one call in each interval."""
        if self.remaining_delay(account) > 0:
            return False
        if account in self._due:
            self._due[account] = self._clock() + PROBE_INTERVAL
        return True

    def cause(self, account: str) -> type[ParleyError] | None:
        """Returns the type of failure that blocks this account; None if it is not blocked."""
        return self._cause if self.remaining_delay(account) else None

    def record_failure(self, account: str, cause: type[ParleyError]) -> bool:
        """Records a suspect failure. Returns whether it counts as a failure of the target for all accounts.

        A rejected request does not block its account, whose next request may be valid.
        """
        rejected = issubclass(cause, UpstreamRejected)
        self._counts[account] = self._counts.get(account, 0) + (not rejected)
        if self._counts[account] >= CONSECUTIVE_FAILURES and not rejected:
            self._cause = cause
            self._due[account] = self._clock() + PROBE_INTERVAL
        return len(self._counts) > 1

    def record_success(self) -> None:
        """Forgets all suspect failures, because the target works."""
        if self._counts:
            self._counts.clear()
            self._due.clear()
