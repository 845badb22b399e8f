"""How long a target usually takes to its first token, and when a call that still waits for it is late."""

from collections import deque

SAMPLES = 20
MIN_SAMPLES = 5
DEFAULT_SECONDS = 10.0
"""After how many seconds a call is hedged at a target of which too little is known."""
MIN_SECONDS = 2.0
FACTOR = 1.5


class FirstTokenLatency:
    """The latest times to the first token at one target, in seconds.

    Only tokens that came are kept. Where they differ widely, as those of models that reason do, the longer ones push
    `late_threshold` up until it fits them; a target that has become slow, and whose calls are answered by a hedge
    instead, does not push it up.
    """

    def __init__(self) -> None:
        self._samples: deque[float] = deque(maxlen=SAMPLES)

    def add(self, seconds: float) -> None:
        """Keeps the time of a call whose first token has come."""
        self._samples.append(seconds)

    def late_threshold(self) -> float | None:
        """Returns after how many seconds a call is late; None where less than five times are known.

        It is half as long again as the second longest of the latest twenty, and at least two seconds.
        """
        if len(self._samples) < MIN_SAMPLES:
            return None
        return max(MIN_SECONDS, FACTOR * sorted(self._samples)[-2])
