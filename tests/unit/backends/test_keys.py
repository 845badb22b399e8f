"""The rotation of keys, on a clock of the test."""

import pytest

from parley.backends.http.keys import KeyRing
from parley.config import Timeouts
from parley.core.errors import UpstreamError, UpstreamMisconfigured, UpstreamQuotaExhausted, UpstreamRateLimited
from parley.core.ports import UpstreamCall
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest

NO_QUOTA = UpstreamQuotaExhausted("m")


class Ring:
    """A ring of the keys a and b, and its clock."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.ring = KeyRing(["a", "b"], "vendor.test", lambda: self.now)

    def select(self) -> tuple[str, UpstreamCall]:
        """Returns the key of a new call, and the call."""
        call = UpstreamCall(CreateChatCompletionRequest(), "m", Timeouts())
        return self.ring.select(call), call

    def fail(self, key: str, error: UpstreamError, status: int = 429) -> None:
        """Makes a call with this key fail."""
        self.ring.record_failure(self.call_with(key), error, status)

    def call_with(self, key: str) -> UpstreamCall:
        """Returns a new call that is sent with this key."""
        for _ in range(2):
            selected, call = self.select()
            if selected == key:
                return call
        raise AssertionError(f"{key} was left out")

    def selected(self) -> str:
        """Returns the keys of the next four calls, which do not end."""
        return "".join(self.select()[0] for _ in range(4))


@pytest.fixture
def ring() -> Ring:
    """A new ring."""
    return Ring()


def rate_limited(seconds: float | None = None) -> UpstreamError:
    """Returns a rate limit with this `Retry-After`."""
    return UpstreamRateLimited("limited", retry_after=seconds)


@pytest.mark.parametrize(
    ("error", "status", "seconds"),
    [
        (rate_limited(), 429, 1),
        (rate_limited(7), 429, 7),
        (NO_QUOTA, 402, 10),
        (NO_QUOTA, 0, 10),
        (UpstreamMisconfigured("refused"), 401, 10),
        (UpstreamMisconfigured("refused"), 403, 10),
    ],
)
def test_a_key_is_left_out_for_a_time(ring: Ring, error: UpstreamError, status: int, seconds: float) -> None:
    """A key that failed is left out for the time of its failure; then one call probes it."""
    ring.fail("a", error, status)
    ring.now += seconds - 0.1
    assert "bbbb" == ring.selected()
    ring.now += 0.2
    assert (1, 0) == (ring.selected().count("a"), ring.selected().count("a"))


def test_a_success_closes_the_breaker(ring: Ring) -> None:
    """After a successful probe the key takes its turns again."""
    ring.fail("a", NO_QUOTA)
    ring.now += 11
    ring.ring.record_success(ring.call_with("a"))
    assert 2 == ring.selected().count("a")


def test_the_time_doubles_to_ten_minutes(ring: Ring) -> None:
    """Each failed probe doubles the time until the next one, up to ten minutes."""
    waits = []
    for _ in range(9):
        ring.fail("a", NO_QUOTA)
        start = ring.now
        while ring.select()[0] != "a":
            ring.now += 1
        waits.append(ring.now - start)
        ring.now += 61  # the probe has no result
    assert [10, 20, 40, 80, 160, 320, 600, 600, 600] == pytest.approx(waits, abs=1)


def test_a_probe_without_a_result_is_repeated(ring: Ring) -> None:
    """If a probe ends without a result, as a cancelled call does, another call probes a minute later."""
    ring.fail("a", NO_QUOTA)
    ring.now += 11
    assert 1 == ring.selected().count("a")
    ring.now += 59
    assert 0 == ring.selected().count("a")
    ring.now += 2
    assert 1 == ring.selected().count("a")


def test_without_a_key_the_one_that_is_due_first_is_used(ring: Ring) -> None:
    """If all keys are left out, the call uses the one whose time ends first, and no other is tried for it."""
    ring.fail("a", rate_limited(30))
    ring.fail("b", rate_limited(20))
    key, call = ring.select()
    ring.ring.record_failure(call, rate_limited(20), 429)
    assert ("b", False) == (key, ring.ring.has_other(call, 0))


def test_without_a_key_the_delay_is_that_of_the_first_one(ring: Ring) -> None:
    """The delay of the last failure is the time until any key may work."""
    ring.fail("a", rate_limited(5))
    ring.now += 1
    last = rate_limited(60)
    ring.fail("b", last)
    assert 4 == last.retry_after


@pytest.mark.parametrize(
    ("error", "status"), [(UpstreamMisconfigured("gone"), 404), (UpstreamError("odd"), 500), (rate_limited(), 429)]
)
def test_other_failures_leave_the_key(ring: Ring, error: UpstreamError, status: int) -> None:
    """A failure that is not that of the key leaves its breaker closed, as does a limit that one request exceeds."""
    error.is_suspect = isinstance(error, UpstreamRateLimited)
    ring.fail("a", error, status)
    assert "baba" == ring.selected()


def test_failures_of_earlier_calls_leave_a_closed_breaker(ring: Ring) -> None:
    """After a probe has closed the breaker, failures of calls that were sent before it opened change nothing."""
    late = [ring.call_with("a") for _ in range(3)]
    ring.fail("a", NO_QUOTA)
    ring.now += 11
    ring.ring.record_success(ring.call_with("a"))
    for call in late:
        ring.ring.record_failure(call, NO_QUOTA, 429)
    assert (2, 0) == ring.ring.counts


def test_a_burst_of_failures_is_one(ring: Ring) -> None:
    """Calls that were sent before the breaker opened do not double its time, and go on with another key."""
    calls = [ring.call_with("a") for _ in range(4)]
    for call in calls:
        ring.ring.record_failure(call, NO_QUOTA, 429)
    assert 4 * [True] == [ring.ring.has_other(call, 0) for call in calls]
    ring.now += 10.1
    assert 1 == ring.selected().count("a")


def test_a_success_of_an_earlier_call_leaves_an_open_breaker(ring: Ring) -> None:
    """An answer to a call that was sent before the breaker opened shows nothing about the key now."""
    late = ring.call_with("a")
    ring.fail("a", NO_QUOTA)
    ring.ring.record_success(late)
    assert (1, 1) == ring.ring.counts


def test_a_probe_that_lasted_too_long_has_no_result(ring: Ring) -> None:
    """Once another call probes the key, the result of the former probe changes nothing."""
    ring.fail("a", NO_QUOTA)
    ring.now += 11
    former = ring.call_with("a")
    ring.now += 61
    probe = ring.call_with("a")
    ring.ring.record_success(former)
    assert (1, 1) == ring.ring.counts
    ring.ring.record_success(probe)
    assert (2, 0) == ring.ring.counts


def test_a_probe_whose_stream_fails_later_opens_the_breaker_again(ring: Ring) -> None:
    """The first chunk of a probe closes the breaker; a failure of the same call after it counts."""
    ring.fail("a", NO_QUOTA)
    ring.now += 11
    probe = ring.call_with("a")
    ring.ring.record_success(probe)
    ring.ring.record_failure(probe, NO_QUOTA, 0)
    assert (1, 1) == ring.ring.counts


def test_calls_without_a_working_key_do_not_lengthen_its_time(ring: Ring) -> None:
    """While all keys are left out, failures of the calls that are sent nevertheless double no time."""
    for key in "ab":
        ring.fail(key, rate_limited())
    calls = [ring.select()[1] for _ in range(20)]
    for call in calls:
        ring.ring.record_failure(call, rate_limited(), 429)
    ring.now += 1.1
    assert 20 * [True] == [ring.ring.has_other(call, 0) for call in calls]


def test_a_success_without_a_working_key_closes_the_breaker(ring: Ring) -> None:
    """If all keys are left out and a call succeeds nevertheless, its key works again."""
    for key in "ab":
        ring.fail(key, NO_QUOTA)
    ring.ring.record_success(ring.select()[1])
    assert (1, 1) == ring.ring.counts
