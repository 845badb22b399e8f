"""Tests of the threshold after which a first token is late."""

import pytest

from parley.core.routing.first_token_latency import FirstTokenLatency


@pytest.mark.parametrize(
    ("seconds", "late_after"),
    [
        ([], None),
        ([0.3] * 4, None),
        ([0.3] * 5, 2.0),
        ([4.0] * 5, 6.0),
        ([0.3] * 19 + [100.0], 2.0),
        ([0.3] * 18 + [100.0, 50.0], 75.0),
        ([50.0] * 10 + [1.0] * 20, 2.0),
    ],
)
def test_the_threshold_is_half_as_long_again_as_nearly_all_samples(
    seconds: list[float], late_after: float | None
) -> None:
    """The threshold is at least two seconds, ignores one outlier and needs five samples."""
    known = FirstTokenLatency()
    for one in seconds:
        known.add(one)
    assert late_after == known.late_threshold()
