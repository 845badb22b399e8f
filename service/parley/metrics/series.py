"""Counters and histograms to which a call adds without a lock.

The classes of prometheus-client take a lock and several functions for each value: with a dozen values, a twentieth of a
call. Only one thread adds to these, so that they need no lock; a scrape reads copies in another thread.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from parley.metrics.prometheus import CounterMetricFamily, HistogramMetricFamily, floatToGoString

MAX_COUNTERS, MAX_HISTOGRAMS = 1_000, 250
"""The most label sets of one family. What is beyond counts under `other`, so that a scrape stays bounded."""
OTHER = "other"


class Counter:
    """A family of counters.

    Args:
        name: The name of the family, without `_total`.
        documentation: What it counts.
        labels: The names of the labels.
    """

    def __init__(self, name: str, documentation: str, labels: Sequence[str] = ()) -> None:
        self._name, self._documentation, self._labels = name, documentation, labels
        self._series: dict[tuple[str, ...], list[float]] = {}

    def series(self, *values: str) -> list[float]:
        """Returns the counter with these values of the labels, as a list of one number to add to."""
        return _find(self._series, values, 1, MAX_COUNTERS)

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yields the family, for prometheus-client."""
        family = CounterMetricFamily(self._name, self._documentation, labels=self._labels)
        for values, (amount,) in list(self._series.items()):
            family.add_metric(values, amount)
        yield family


class Histogram:
    """A family of histograms.

    Args:
        name: The name of the family.
        documentation: What it measures, and its unit.
        bounds: The upper bounds of the buckets, without infinity.
        labels: The names of the labels.
    """

    def __init__(self, name: str, documentation: str, bounds: Sequence[float], labels: Sequence[str] = ()) -> None:
        self._name, self._documentation, self._labels = name, documentation, labels
        self.bounds = bounds
        self._series: dict[tuple[str, ...], list[float]] = {}

    def series(self, *values: str) -> list[float]:
        """Returns the histogram with these values of the labels: the count of each bucket, then the sum."""
        return _find(self._series, values, len(self.bounds) + 2, MAX_HISTOGRAMS)

    def add(self, value: float, *values: str) -> None:
        """Adds a value to the series with these values of the labels."""
        series = self.series(*values)
        series[bisect_left(self.bounds, value)] += 1
        series[-1] += value

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yields the family, for prometheus-client."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labels)
        for values, numbers in list(self._series.items()):
            add_histogram(family, values, self.bounds, numbers)
        yield family


def add_histogram(
    family: HistogramMetricFamily, values: Sequence[str], bounds: Sequence[float], numbers: Sequence[float]
) -> None:
    """Adds a histogram to its family: the count of each bucket, then the sum."""
    names = [*map(floatToGoString, bounds), "+Inf"]
    *counts, total = list(numbers)
    family.add_metric(values, list(zip(names, accumulate(counts), strict=True)), total)


def _find(known: dict[tuple[str, ...], list[float]], values: tuple[str, ...], size: int, most: int) -> list[float]:
    """Returns the numbers of these label values; those of `other` if the family has its most label sets."""
    found = known.get(values)
    if found is None:
        if len(known) >= most:
            values = (OTHER,) * len(values)
        found = known.setdefault(values, [0] * size)  # most are counts, which Python adds faster as integers
    return found
