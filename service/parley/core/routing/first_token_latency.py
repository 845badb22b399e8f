"""The usual time to the first token of a target, and the threshold after which a call is late."""

from collections import deque

SAMPLES = 20
MIN_SAMPLES = 5
DEFAULT_SECONDS = 10.0
"""After how many seconds a call is hedged at a target with too few samples."""
MIN_SECONDS = 2.0
FACTOR = 1.5


class FirstTokenLatency:
    """The latest times to the first token at one target, in seconds.

    Only tokens that arrived are samples. If the times differ widely, as with reasoning models, the longer ones raise
    `late_threshold` until it covers them. A target that has become slow, so that hedges answer its calls, does not
    raise it.
    """

    def __init__(self) -> None:
        self._samples: deque[float] = deque(maxlen=SAMPLES)

    def add(self, seconds: float) -> None:
        """Adds the time to the first token of one call."""
        self._samples.append(seconds)

    def late_threshold(self) -> float | None:
        """Returns after how many seconds a call is late; None with fewer than `MIN_SAMPLES` samples.

        The threshold is 1.5 times the second longest of the latest 20 samples, and at least two seconds.
        """
        if len(self._samples) < MIN_SAMPLES:
            return None
        return max(MIN_SECONDS, FACTOR * sorted(self._samples)[-2])
