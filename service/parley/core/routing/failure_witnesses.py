"""Decides whether failures that a request may have caused are failures of the target itself."""

from parley.core.routing.breaker import Clock

RECENT_SECONDS = 30.0
"""For how long an account that was answered is expected to confirm a failure."""
MANY_ACCOUNTS = 5
"""So many accounts that fail in a row confirm a failure whatever others have seen before."""
_MAX_ACCOUNTS = 4096


class FailureWitnesses:
    """The accounts that have seen a target fail since its latest complete answer, and those that it answered lately.

    A failure is confirmed if at least two accounts have seen one since the latest answer, and every account that was
    answered within the last 30 seconds is among them; or if five accounts have seen one.

    Args:
        clock: Returns the time in seconds.
    """

    __slots__ = ("_answered", "_clock", "_failing")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failing: set[str] = set()
        self._answered: dict[str, float] = {}

    def record_failure(self, account: str) -> bool:
        """Records that a call of this account failed. Returns whether the failure is confirmed."""
        failing = self._failing
        if len(failing) < _MAX_ACCOUNTS:
            failing.add(account)
        if len(failing) < 2:  # noqa: PLR2004 - one account alone confirms nothing
            return False
        since = self._clock() - RECENT_SECONDS
        self._answered = {name: answered for name, answered in self._answered.items() if answered >= since}
        return len(failing) >= MANY_ACCOUNTS or self._answered.keys() <= failing

    def record_first_token(self, account: str) -> None:
        """Records that the target began to answer this account."""
        if len(self._answered) >= _MAX_ACCOUNTS and account not in self._answered:
            self._answered.clear()
        self._answered[account] = self._clock()

    def record_success(self, account: str) -> None:
        """Records that the target answered this account completely."""
        if account in self._answered:
            self._answered[account] = self._clock()
        else:
            self.record_first_token(account)
        if self._failing:
            self._failing.clear()

    def withdraw(self, account: str) -> None:
        """Withdraws the failure of this account."""
        self._failing.discard(account)
