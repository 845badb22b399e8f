"""Targets that the retry state skips: open breakers, holds, failed health checks, and blocked accounts."""

import pytest

from parley.config import Retries
from parley.core.errors import (
    ParleyError,
    UpstreamQuotaExhausted,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamUnavailable,
)
from parley.core.routing.call_origin import PLAIN_ORIGIN
from parley.core.routing.probe_schedule import InMemoryState
from parley.core.routing.target_breakers import TargetBreakers
from tests.unit.routing.routes import FAILURES, Clock, candidates
from tests.unit.routing.scripted_failures import Play


def test_a_target_with_an_open_breaker_is_skipped() -> None:
    """If all breakers are open, the call fails immediately with the time after which to retry."""
    clock = Clock()
    waiting = candidates(clock, "a", "b")
    for _ in range(2):
        Play({"a": ["unavailable", "…"]}, clock=clock).of(waiting)
    assert ["b"] == Play({}, clock=clock).of(waiting).called
    for _ in range(2):
        Play({"b": ["unavailable", "…"]}, clock=clock).of(waiting)
    played = Play({}, clock=clock).of(waiting)
    assert (UpstreamUnavailable, []) == (type(played.error), played.called)
    assert played.error is not None
    assert played.error.retry_after is not None
    assert 1 <= played.error.retry_after <= 10
    assert "has failed lately" in (played.error.cause or "")


def test_an_unhealthy_target_is_skipped() -> None:
    """The target is used again when its health check succeeds."""
    clock = Clock()
    waiting = candidates(clock, "a", "b")
    waiting[0].target.healthy = False
    assert ["b"] == Play({}, clock=clock).of(waiting).called
    waiting[0].target.healthy = True
    assert ["a"] == Play({}, clock=clock).of(waiting).called


@pytest.mark.parametrize("kind", ["busy for 60 s", "away for 60 s"])
def test_a_target_gets_no_calls_before_the_end_of_its_retry_after(kind: str) -> None:
    """The hold applies to later calls and to other workers; without another target the error has cause and delay."""
    clock, memory = Clock(), InMemoryState()
    waiting = candidates(clock, "a", "b")
    other = candidates(clock, "a")
    for candidate in (waiting[0], other[0]):
        candidate.target.breakers = TargetBreakers(clock, memory)
    assert ["a", "b"] == Play({"a": [kind]}, clock=clock).of(waiting).called
    clock.now += 20
    assert ["b"] == Play({}, clock=clock).of(waiting).called
    expected = type(FAILURES[kind]())
    for alone in (waiting[:1], other):
        played = Play({}, clock=clock).of(alone)
        assert (expected, []) == (type(played.error), played.called)
        assert played.error is not None
        assert 40 == played.error.retry_after
    clock.now += 40
    assert ["a"] == Play({}, clock=clock).of(other).called


def test_a_hold_is_bounded() -> None:
    """A target that requests a day without calls is tried again after five minutes."""
    clock = Clock()
    (one,) = candidates(clock, "a")
    one.target.breakers.hold(PLAIN_ORIGIN, 86400, UpstreamRateLimited)
    clock.now += 299
    assert not one.target.admits()
    clock.now += 1
    assert one.target.admits()


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("busy", UpstreamRateLimited), ("quota", UpstreamQuotaExhausted), ("timeout", UpstreamUnavailable)],
)
def test_the_error_of_an_open_breaker_has_its_cause(kind: str, reason: type[ParleyError]) -> None:
    """A rate limit or an exhausted quota stays one, with the time until the next probe."""
    clock = Clock()
    (one,) = candidates(clock, "a")
    for _ in range(5):
        Play({"a": [kind, "…"]}, Retries(attempts=1), clock=clock).of([one])
    clock.now += 4
    played = Play({}, clock=clock).of([one])
    assert (reason, []) == (type(played.error), played.called)
    assert played.error is not None
    assert (None if kind == "quota" else 6) == played.error.retry_after


def test_the_failure_that_opens_the_breaker_has_its_delay() -> None:
    """The error of the call that has opened the breaker says when the next probe is due."""
    clock = Clock()
    (one,) = candidates(clock, "a")
    for _ in range(2):
        played = Play({"a": ["busy", "…"]}, jitter=0, clock=clock).of([one])
    assert isinstance(played.error, UpstreamRateLimited)
    assert 10 == played.error.retry_after


@pytest.mark.parametrize(
    ("kind", "calls", "expected"),
    [
        ("busy for 10 s", 1, False),
        ("busy for 2 s", 2, True),
        ("busy", 3, True),
        ("unavailable", 3, True),
        ("broken", 1, False),
    ],
)
def test_a_call_that_ends_while_the_target_admits_others_has_used_its_retries_up(
    kind: str, calls: int, expected: bool
) -> None:
    """A target on hold is protected from retries; any other target would get the same calls again."""
    (one,) = candidates(Clock(), "a")
    played = Play({"a": [kind, "…"]}).of([one])
    assert played.error is not None
    assert (["a"] * calls, expected) == (played.called, played.error.retries_exhausted)


def test_of_several_rate_limits_the_first_to_reset_is_returned() -> None:
    """That is the time at which a retry may succeed."""
    clock = Clock()
    failures = {"a": ["busy for 10 s"], "b": ["busy for 60 s"]}
    played = Play(failures, clock=clock).of(candidates(clock, "a", "b"))
    assert played.error is not None
    assert 10 == played.error.retry_after


DOUBTFUL = ["500", "404", "unrecognized", "rejected perhaps"]


@pytest.mark.parametrize("kind", DOUBTFUL[:-1])
def test_suspect_failures_of_one_account_block_only_that_account(kind: str) -> None:
    """A request that makes a server fail does not cost other accounts the target."""
    clock = Clock()
    (one,) = candidates(clock, "a")
    for _ in range(5):
        Play({"a": [kind, "…"]}, Retries(attempts=1), clock=clock, account="mistaken").of([one])
    played = Play({}, clock=clock, account="mistaken").of([one])
    assert (UpstreamUnavailable, []) == (type(played.error), played.called)
    assert played.error is not None
    assert 10 == played.error.retry_after
    played = Play({}, clock=clock, account="other").of([one])
    assert (["a"], None) == (played.called, played.error)
    assert ["a"] == Play({}, clock=clock, account="mistaken").of([one]).called


@pytest.mark.parametrize("kind", DOUBTFUL)
def test_suspect_failures_of_two_accounts_open_the_breaker(kind: str) -> None:
    """A target that fails for every account is down."""
    clock = Clock()
    (one,) = candidates(clock, "a")
    for number in range(6):
        Play({"a": [kind, "…"]}, Retries(attempts=1), clock=clock, account="ab"[number % 2]).of([one])
    assert [] == Play({}, clock=clock, account="c").of([one]).called


def test_a_failing_target_is_probed_by_its_only_account() -> None:
    """A target that answers 500 to its only account gets one call in ten to fifteen seconds until it recovers."""
    clock = Clock()
    (one,) = candidates(clock, "a")
    upstream = 0
    for _ in range(300):
        upstream += len(Play({"a": ["500", "…"]}, Retries(attempts=1), clock=clock, account="only").of([one]).called)
        clock.now += 0.1
    assert 5 + 2 <= upstream <= 5 + 3
    clock.now += 15
    for _ in range(3):
        assert ["a"] == Play({}, clock=clock, account="only").of([one]).called


def test_an_unexplained_400_reaches_the_caller_if_no_target_answers() -> None:
    """The error has the target's message; if another target answers, the call succeeds."""
    clock = Clock()
    failures = {"a": ["rejected perhaps"]}
    assert ["a", "b"] == Play(failures, clock=clock).of(candidates(clock, "a", "b")).called
    played = Play(failures, clock=clock).of(candidates(clock, "a"))
    assert (UpstreamRejected, "rejected perhaps") == (type(played.error), str(played.error))


def test_rejected_requests_do_not_block_an_account() -> None:
    """Each invalid request gets its error, and the next valid one is answered."""
    clock = Clock()
    (one,) = candidates(clock, "a")
    for _ in range(10):
        played = Play({"a": ["rejected perhaps"]}, clock=clock, account="mistaken").of([one])
        assert isinstance(played.error, UpstreamRejected)
    assert ["a"] == Play({}, clock=clock, account="mistaken").of([one]).called


def test_the_error_of_a_blocked_account_has_its_cause() -> None:
    """A quota that only one account has seen exhausted is reported as a quota, not as an outage."""
    clock = Clock()
    (one,) = candidates(clock, "a")
    for _ in range(5):
        Play({"a": ["quota perhaps"]}, clock=clock, account="only").of([one])
    played = Play({}, clock=clock, account="only").of([one])
    assert (UpstreamQuotaExhausted, []) == (type(played.error), played.called)
