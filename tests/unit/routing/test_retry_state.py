"""Tests of the retry state, row by row of the table of failures."""

from contextlib import suppress

import pytest

from parley.config import Retries
from parley.core.errors import (
    ContentPolicy,
    ContextLengthExceeded,
    DeadlineExceeded,
    ParleyError,
    UpstreamUnavailable,
)
from parley.core.routing.budget import RetryBudget
from parley.core.routing.call_origin import PLAIN_ORIGIN
from parley.core.routing.retry_state import RetryState
from parley.core.usage.attempts import AttemptKind, AttemptOutcome
from tests.unit.routing.routes import CALL, FAILURES, Clock, candidates, has_recorded_failure
from tests.unit.routing.scripted_failures import Play

# The failures of the first target; how often it is called, whether the next one is, and whether it counts against it.
ROWS: dict[str, tuple[list[str], int, bool, bool]] = {
    "500 once": (["unavailable"], 1 + 1, False, True),
    "503 for ever": (["unavailable", "…"], 1 + 2, True, True),
    "503 for ever, at first on two connections": (["unavailable twice", "unavailable", "…"], 1 + 1, True, True),
    "429 with 2 s once": (["busy for 2 s"], 1 + 1, False, False),
    "429 with 2 s for ever": (["busy for 2 s", "…"], 1 + 1, True, False),
    "429 with 60 s for ever": (["busy for 60 s", "…"], 1, True, False),
    "503 with 60 s for ever": (["away for 60 s", "…"], 1, True, False),
    "no quota": (["quota", "…"], 1, True, True),
    "500 for ever": (["500", "…"], 1 + 2, True, True),
    "a status that no row lists": (["unrecognized", "…"], 1, True, True),
    "404": (["404", "…"], 1, True, True),
    "400 that does not say why": (["rejected perhaps", "…"], 1, True, False),
    "429 for ever": (["busy", "…"], 1 + 2, True, True),
    "429 once": (["busy"], 1 + 1, False, True),
    "no first token": (["timeout", "…"], 1, True, True),
    "a broken stream": (["broken", "…"], 1, True, True),
    "an unreadable answer": (["unreadable", "…"], 1, True, True),
    "context too long": (["too long", "…"], 1, False, False),
    "content policy": (["policy", "…"], 1, False, False),
    "another 400": (["rejected", "…"], 1, False, False),
    "401": (["misconfigured", "…"], 1, True, True),
    "a parameter it cannot honour": (["unsupported", "…"], 1, True, False),
}


@pytest.mark.parametrize("row", ROWS)
def test_a_row_of_the_table(row: str) -> None:
    """A row says how often the target is tried, whether the next one is, and whether its origin counts the failure."""
    failures, times, next_is_called, counts = ROWS[row]
    clock = Clock()
    waiting = candidates(clock, "one", "two")
    played = Play({"one": failures}, clock=clock).of(waiting)
    assert ["one"] * times + ["two"] * next_is_called == played.called
    assert counts == has_recorded_failure(waiting[0].target)


def test_slow_targets_are_used_in_their_order() -> None:
    """If every target is skipped because it is slow, each is tried, the first one first."""
    clock = Clock()
    waiting = candidates(clock, "one", "two", "three")
    for candidate in waiting:
        breakers = candidate.target.breakers
        while breakers.is_closed(PLAIN_ORIGIN):
            permit = breakers.try_acquire_permit(PLAIN_ORIGIN)
            assert permit is not None
            breakers.record_late(PLAIN_ORIGIN, permit)
    retry_state = RetryState("m", waiting, Retries(), RetryBudget(1, clock), deadline=None, clock=clock)
    assert waiting == [retry_state.next_candidate() for _ in waiting]


@pytest.mark.parametrize(("kind", "opens"), [("timeout", True), ("rejected", False)])
def test_a_late_call_that_then_fails_counts_once(kind: str, opens: bool) -> None:
    """Five late calls open the breaker; a rejected request shows that the target works and removes the late failure."""
    clock = Clock()
    waiting = candidates(clock, "one", "two")
    breakers = waiting[0].target.breakers
    for _ in range(5):
        assert breakers.is_closed(PLAIN_ORIGIN)
        retry_state = RetryState("m", waiting, Retries(), RetryBudget(1, clock), deadline=None, clock=clock)
        attempt = retry_state.start_attempt(retry_state.next_candidate(), CALL, AttemptKind.FIRST)
        assert attempt is not None
        retry_state.first_token_late(attempt)
        with suppress(ParleyError):
            retry_state.failed(attempt, FAILURES[kind]())
    assert breakers.is_closed(PLAIN_ORIGIN) != opens


@pytest.mark.parametrize(("seconds", "repeated"), [(4.9, True), (5.1, False)])
def test_a_slow_failure_is_not_retried(seconds: float, repeated: bool) -> None:
    """A target that fails after a long silence is tried once; a failure within `connect`, 5 s, may be retried."""
    clock = Clock()
    waiting = candidates(clock, "one")
    retry_state = RetryState("m", waiting, Retries(), RetryBudget(1, clock), deadline=None, clock=clock)
    attempt = retry_state.start_attempt(retry_state.next_candidate(), CALL, AttemptKind.FIRST)
    assert attempt is not None
    clock.now += seconds
    assert repeated == (retry_state.failed(attempt, FAILURES["unavailable"]()) is not None)


def test_a_conversation_that_is_too_long_goes_to_the_fallback_and_not_to_the_next_target() -> None:
    """The caller gets the error about the length if the fallback does not answer either."""
    clock = Clock()
    waiting = [*candidates(clock, "one", "two"), *candidates(clock, "three", model_id="fallback")]
    assert ["one", "three"] == Play({"one": ["too long"]}, clock=clock).of(waiting).called
    failures = {"one": ["too long"], "three": ["unavailable", "…"]}
    clock = Clock()
    waiting = [*candidates(clock, "one", "two"), *candidates(clock, "three", model_id="fallback")]
    played = Play(failures, clock=clock).of(waiting)
    assert ContextLengthExceeded is type(played.error)


def test_a_content_policy_rejection_reaches_the_caller() -> None:
    """The error is returned unchanged although there is a fallback."""
    clock = Clock()
    waiting = [*candidates(clock, "one"), *candidates(clock, "two", model_id="fallback")]
    played = Play({"one": ["policy"]}, clock=clock).of(waiting)
    assert (ContentPolicy, "policy", ["one"]) == (type(played.error), str(played.error), played.called)


def test_backoff_doubles_from_four_tenths_of_a_second_with_jitter() -> None:
    """The delays are 0.4 and 0.8 s on average, each times 0.5 to 1.5; a short `Retry-After` is waited for."""
    assert [0.4, 0.8] == Play({"one": ["unavailable", "…"]}).of(candidates(Clock(), "one", "two")).pauses
    clock = Clock()
    assert [2.0] == Play({"one": ["busy for 2 s"]}, clock=clock).of(candidates(clock, "one")).pauses
    for jitter, expected in ((0.0, [0.2, 0.4]), (1.0, [0.6, 1.2])):
        clock = Clock()
        played = Play({"one": ["unavailable", "…"]}, jitter=jitter, clock=clock).of(candidates(clock, "one"))
        assert expected == played.pauses


def test_attempts_are_bounded_and_each_candidate_is_tried_before_retries() -> None:
    """Six attempts at four failing targets leave two retries."""
    failures = {name: ["unavailable", "…"] for name in "abcd"}
    clock = Clock()
    played = Play(failures, clock=clock).of(candidates(clock, *"abcd"))
    assert ["a", "a", "a", "b", "c", "d"] == played.called
    clock = Clock()
    played = Play(failures, Retries(attempts=3), clock=clock).of(candidates(clock, *"abcd"))
    assert ["a", "b", "c"] == played.called


def test_a_target_that_does_not_support_the_request_uses_no_attempt() -> None:
    """Two targets that do not support a parameter leave both attempts to the others."""
    clock = Clock()
    failures = {"a": ["unsupported"], "b": ["unsupported"], "c": ["timeout"]}
    played = Play(failures, Retries(attempts=2), clock=clock).of(candidates(clock, *"abcd"))
    assert (["a", "b", "c", "d"], None) == (played.called, played.error)


def test_hedges_use_the_retry_budget() -> None:
    """The budget keeps a slow backend from doubling the traffic of the next one."""
    clock = Clock()
    budget = RetryBudget(0, clock)
    retry_state = RetryState("m", candidates(clock, "a"), Retries(), budget, deadline=None, clock=clock)
    assert 30 == sum(retry_state.try_hedge() for _ in range(40))
    retry_state.next_candidate()
    clock.now += 10
    assert not retry_state.try_hedge()


def test_nothing_starts_past_the_deadline() -> None:
    """A retry whose delay would end past the deadline is skipped, and the next target is tried immediately."""
    clock = Clock()
    played = Play({"a": ["unavailable", "…"]}, deadline=clock.now + 0.3, clock=clock).of(candidates(clock, "a", "b"))
    assert (["a", "b"], []) == (played.called, played.pauses)
    clock = Clock()
    played = Play({}, deadline=clock.now, clock=clock).of(candidates(clock, "a"))
    assert (DeadlineExceeded, []) == (type(played.error), played.called)


def test_retries_are_a_share_of_the_calls() -> None:
    """The balance is at most thirty; each call deposits a quarter, and three a second are free."""
    clock = Clock()
    budget = RetryBudget(0.25, clock)
    assert 30 == sum(budget.try_withdraw() for _ in range(100))
    for _ in range(40):
        budget.deposit()
    assert 10 == sum(budget.try_withdraw() for _ in range(100))
    clock.now += 2
    assert 6 == sum(budget.try_withdraw() for _ in range(100))


def test_a_failure_after_the_first_token_is_not_retried() -> None:
    """The rest of the stream comes from a continuation, so the failure needs nothing from the retry budget."""
    clock = Clock()
    (one,) = candidates(clock, "a")
    budget = RetryBudget(0, clock)
    retry_state = RetryState("m", [one], Retries(), budget, deadline=None, clock=clock)
    attempt = retry_state.start_attempt(retry_state.next_candidate(), CALL, AttemptKind.FIRST)
    assert attempt is not None
    retry_state.first_token_received(attempt)
    assert retry_state.failed(attempt, UpstreamUnavailable("m is not available")) is None
    assert 30 == sum(budget.try_withdraw() for _ in range(100))


def test_a_cancelled_attempt_does_not_count_for_the_target() -> None:
    """The receipt shows the attempt as cancelled, and the breaker records no failure."""
    clock = Clock()
    (one,) = candidates(clock, "a")
    retry_state = RetryState("m", [one], Retries(), RetryBudget(0.2, clock), deadline=None, clock=clock)
    attempt = retry_state.start_attempt(retry_state.next_candidate(), CALL, AttemptKind.FIRST)
    assert attempt is not None
    retry_state.cancelled(attempt)
    retry_state.cancelled(attempt)
    assert (AttemptOutcome.CANCELLED, False) == (attempt.outcome, has_recorded_failure(one.target))


def test_a_request_larger_than_a_rate_limit_goes_to_the_next_target() -> None:
    """The next target is tried immediately; there is no hold, and the failure does not count."""
    clock = Clock()
    waiting = candidates(clock, "a", "b")
    for _ in range(10):
        assert ["a", "b"] == Play({"a": ["oversized"]}, clock=clock).of(waiting).called
