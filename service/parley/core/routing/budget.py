"""The retry budget of a model: bounds the extra load that retries and hedges put on failing backends."""

import time

from parley.core.routing.breaker import Clock

MIN_RETRIES_PER_SECOND = 3.0
MAX_BALANCE = 30.0
"""The largest balance: the free retries of ten seconds without retries."""


class RetryBudget:
    """The retry budget of one model in this worker.

    Args:
        share: Retry tokens that each call adds. `MIN_RETRIES_PER_SECOND` retries are free.
        clock: Returns the time in seconds.
    """

    def __init__(self, share: float, clock: Clock = time.monotonic) -> None:
        self._share = share
        self._clock = clock
        self._balance = MAX_BALANCE
        self._updated = clock()

    def deposit(self) -> None:
        """Deposits the share of one call."""
        self._balance = min(MAX_BALANCE, self._balance + self._share)

    def try_withdraw(self) -> bool:
        """Withdraws one retry. Returns False if the balance does not cover it."""
        now = self._clock()
        self._balance = min(MAX_BALANCE, self._balance + MIN_RETRIES_PER_SECOND * (now - self._updated))
        self._updated = now
        if self._balance < 1:
            return False
        self._balance -= 1
        return True
