"""S15 of the benchmark: an outage of a target for a minute, and its return."""

from concurrent.futures import Future

from tests.e2e.conftest import OUTAGE_WORKERS
from tests.e2e.faults.outage import CALLERS, MAY_TAKE, OUTAGE, Observation

IN_A_ROW = 5  # failures that open a breaker
FIRST_PAUSE, LONGEST_PAUSE = 10.0, 15.0  # seconds of its first interval
"""The workers of a machine each find out by themselves that it is down; then one of them probes for all."""


def test_every_call_is_answered_by_the_fallback(outage: Future[Observation]) -> None:
    """No caller notices the beginning or the end of the outage."""
    seen = outage.result()
    assert [] == [call for call in seen.calls if call.failure or call.text != "Hello there."]
    during = [call for call in seen.calls if seen.interrupted_at + 0.5 <= call.started < seen.restored_at]
    assert {"backup"} == {call.model for call in during}
    assert len(during) > OUTAGE


def test_a_target_that_is_down_is_probed_once_an_interval(outage: Future[Observation]) -> None:
    """Five failures open a worker's breaker; then one call reaches the target after 10 s, and one each 15 s."""
    seen = outage.result()
    opening = OUTAGE_WORKERS * (IN_A_ROW + len(CALLERS) - 1)  # each other caller may have a call in progress
    burst = [at for at in seen.refused_at if at < seen.interrupted_at + FIRST_PAUSE]
    assert IN_A_ROW <= len(burst) <= opening
    new_store = burst[IN_A_ROW - 1]
    probes = [at - new_store for at in seen.refused_at[len(burst) :]]
    assert 2 <= len(probes)
    for number, seconds in enumerate(probes):
        assert seconds >= _earliest(number), probes


def test_a_target_that_is_back_is_used_again(outage: Future[Observation]) -> None:
    """The target is used again within half a minute of its return."""
    seen = outage.result()
    again = seen.used_again()
    assert again is not None
    assert again - seen.restored_at < MAY_TAKE


def _earliest(probe: int) -> float:
    """Returns the earliest time of the probe with this number, in seconds after the breaker has opened."""
    return sum(min(FIRST_PAUSE * 2.0**number, LONGEST_PAUSE) for number in range(probe + 1)) - 0.1
