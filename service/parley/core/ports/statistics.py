"""Statistics that a store keeps of its commits and reads."""

from bisect import bisect_left
from collections.abc import Sequence

SIZES: Sequence[float] = (1, 2, 4, 8, 16, 32, 64, 128)
"""Upper bounds of the buckets of `StoreStatistics.sizes`."""
SECONDS: Sequence[float] = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds of the buckets of `StoreStatistics.seconds` and `reads`."""


class StoreStatistics:
    """The commits of a store, each of which may have several calls' changes, and its reads.

    Attributes:
        sizes: Commits by the number of changes: the count of each bucket, and of larger ones, then the sum.
        seconds: Commits by their duration, in the same form.
        reads: Reads by their duration, in the same form; a read that waits for another one includes the wait.
        waiting: Calls that wait for an unavailable store.
        waits_ended: Waits after which the store was available.
        waits_failed: Calls that failed because the store was unavailable, at once or after a wait.
    """

    def __init__(self) -> None:
        self.sizes = [0.0] * (len(SIZES) + 2)
        self.seconds = [0.0] * (len(SECONDS) + 2)
        self.reads = [0.0] * (len(SECONDS) + 2)
        self.waiting = self.waits_ended = self.waits_failed = 0

    def record(self, size: int, seconds: float) -> None:
        """Records a commit."""
        self.sizes[bisect_left(SIZES, size)] += 1
        self.sizes[-1] += size
        self.seconds[bisect_left(SECONDS, seconds)] += 1
        self.seconds[-1] += seconds

    def record_read(self, seconds: float) -> None:
        """Records a read."""
        self.reads[bisect_left(SECONDS, seconds)] += 1
        self.reads[-1] += seconds
