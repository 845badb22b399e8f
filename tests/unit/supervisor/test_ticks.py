"""The common times of the supervisor's checks."""

import pytest

from parley.supervisor import ticks


@pytest.mark.parametrize(
    ("now", "seconds", "end"),
    [
        (10.0, 0.5, 10.5),
        (10.2, 0.5, 10.5),
        (10.3, 0.5, 11.0),  # not after a fifth of a second
        (10.4999, 0.5, 11.0),  # a timer that is early ends no pause twice
        (10.3, 1.0, 11.0),
        (10.6, 1.0, 12.0),
    ],
)
def test_pauses_end_at_common_times(now: float, seconds: float, end: float) -> None:
    """A pause ends at a multiple of its length, so that one of a second ends with one of half a second."""
    assert end == pytest.approx(now + ticks.length(now, seconds))
