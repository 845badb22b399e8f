"""How many calls of a model may be repeated at the same target: a backend that is ill is not given twice the work."""

import time

from parley.core.routing.breaker import Clock

MIN_RETRIES_PER_SECOND = 3.0
MAX_BALANCE = 30.0
"""How many repetitions can be saved up: those of ten quiet seconds."""


class RetryBudget:
    """Repetitions of one model's calls in this worker: a `share` of its calls, and a few a second that are free."""

    def __init__(self, share: float, clock: Clock = time.monotonic) -> None:
        self._share = share
        self._clock = clock
        self._balance = MAX_BALANCE
        self._updated = clock()

    def deposit(self) -> None:
        """Notes a call."""
        self._balance = min(MAX_BALANCE, self._balance + self._share)

    def try_withdraw(self) -> bool:
        """Takes a repetition; False where there is none left."""
        now = self._clock()
        self._balance = min(MAX_BALANCE, self._balance + MIN_RETRIES_PER_SECOND * (now - self._updated))
        self._updated = now
        if self._balance < 1:
            return False
        self._balance -= 1
        return True
