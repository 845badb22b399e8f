"""Doubtful failures of one target: those that may be caused by the request of one caller, such as a status of 500.

An account that sees five of them in a row, without a success of any account in between, no longer reaches the target:
only one of its calls in ten seconds does. For all other accounts nothing changes, until a second account sees one, too.
From then on, and until the next success, each of them counts as a failure of the target in its circuit breaker.
"""

from parley.core.errors import ParleyError, UpstreamRejected
from parley.core.routing.breaker import CONSECUTIVE_FAILURES, Clock

PROBE_INTERVAL = 10.0
"""Seconds between two calls of an account that is kept away from the target."""


class SuspectFailures:
    """The doubtful failures since the target's latest success, by account."""

    __slots__ = ("_cause", "_clock", "_counts", "_due")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counts: dict[str, int] = {}
        self._due: dict[str, float] = {}
        self._cause: type[ParleyError] | None = None

    def remaining_delay(self, account: str) -> float:
        """Returns in how many seconds a call of this account may be made; 0 for now."""
        due = self._due.get(account) if self._due else None
        return 0.0 if due is None else max(0.0, due - self._clock())

    def try_acquire_permit(self, account: str) -> bool:
        """Admits a call. An account that is kept away gets one admitted in each pause."""
        if self.remaining_delay(account) > 0:
            return False
        if account in self._due:
            self._due[account] = self._clock() + PROBE_INTERVAL
        return True

    def cause(self, account: str) -> type[ParleyError] | None:
        """Returns the kind of failure that keeps this account away; None where none does."""
        return self._cause if self.remaining_delay(account) else None

    def record_failure(self, account: str, cause: type[ParleyError]) -> bool:
        """Records a doubtful failure. Returns whether it counts against the target for all accounts.

        A request that was refused keeps no account away: its next request may be a good one.
        """
        rejected = issubclass(cause, UpstreamRejected)
        self._counts[account] = self._counts.get(account, 0) + (not rejected)
        if self._counts[account] >= CONSECUTIVE_FAILURES and not rejected:
            self._cause = cause
            self._due[account] = self._clock() + PROBE_INTERVAL
        return len(self._counts) > 1

    def record_success(self) -> None:
        """Forgets all of them: the target works."""
        if self._counts:
            self._counts.clear()
            self._due.clear()
