"""How many calls of a model may be repeated at the same target: a backend that is ill is not given twice the work."""

import time

from parley.core.routing.breaker import Clock

FREE_A_SECOND = 3.0
MOST = 30.0
"""How many repetitions can be saved up: those of ten quiet seconds."""


class Budget:
    """Repetitions of one model's calls in this worker: a `share` of its calls, and a few a second that are free."""

    def __init__(self, share: float, clock: Clock = time.monotonic) -> None:
        self._share = share
        self._clock = clock
        self._left = MOST
        self._counted = clock()

    def called(self) -> None:
        """Notes a call."""
        self._left = min(MOST, self._left + self._share)

    def repeat(self) -> bool:
        """Takes a repetition; False where there is none left."""
        now = self._clock()
        self._left = min(MOST, self._left + FREE_A_SECOND * (now - self._counted))
        self._counted = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
