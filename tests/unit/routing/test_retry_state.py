"""Tests of the retry state, row by row of the table of failures."""

from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from parley.config import Retries
from parley.core.errors import (
    ContentPolicy,
    ContextLengthExceeded,
    DeadlineExceeded,
    ParleyError,
    UpstreamQuotaExhausted,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamUnavailable,
)
from parley.core.routing.attempts import Attempt
from parley.core.routing.breaker import Breaker
from parley.core.routing.budget import RetryBudget
from parley.core.routing.probe_schedule import InMemoryState, ProbeSchedule
from parley.core.routing.retry_state import RetryState
from parley.core.routing.targets import Candidate
from parley.core.usage.attempts import AttemptKind, AttemptOutcome
from tests.unit.routing.routes import CALL, FAILURES, Clock, candidates


@dataclass
class Play:
    """A call in which every target fails as `failures` says, in this order, and then answers unless the last is `…`."""

    failures: dict[str, list[str]]
    retries: Retries = field(default_factory=Retries)
    jitter: float = 0.5
    deadline: float | None = None
    clock: Clock = field(default_factory=Clock)
    called: list[str] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    error: ParleyError | None = None
    account: str = ""

    def of(self, waiting: list[Candidate]) -> "Play":
        """Runs the call to its end."""
        clock = self.clock
        retry_state = RetryState(
            "m",
            waiting,
            self.retries,
            RetryBudget(0.2, clock),
            deadline=self.deadline,
            clock=clock,
            account=self.account,
            jitter=lambda: self.jitter,
        )
        try:
            self._play(retry_state)
        except ParleyError as error:
            self.error = error
        return self

    def _play(self, retry_state: RetryState) -> None:
        again: Attempt | None = None
        while True:
            candidate = again.candidate if again else retry_state.next_candidate()
            attempt = retry_state.start_attempt(
                candidate, CALL, AttemptKind.RETRY if again else AttemptKind.FIRST, again
            )
            assert attempt is not None
            name = candidate.target.name
            failures = self.failures.get(name, [])
            number = sum(one == name for one in self.called)
            self.called.append(name)
            if not failures or (number >= len(failures) and failures[-1] != "…"):
                return retry_state.completed(attempt)
            kind = failures[number] if number < len(failures) - (failures[-1] == "…") else failures[-2]
            pause = retry_state.failed(attempt, FAILURES[kind]())
            again = None if pause is None else attempt
            if pause is not None:
                self.pauses.append(round(pause, 6))
                self.clock.now += pause


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
    "500 for ever": (["500", "…"], 1 + 2, True, False),
    "a status that no row lists": (["unrecognized", "…"], 1, True, False),
    "404": (["404", "…"], 1, True, False),
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
    """A row says how often the target is tried, whether the next one is, and whether the failure counts."""
    failures, times, next_is_called, counts = ROWS[row]
    clock = Clock()
    waiting = candidates(clock, "one", "two")
    played = Play({"one": failures}, clock=clock).of(waiting)
    assert ["one"] * times + ["two"] * next_is_called == played.called
    results = waiting[0].target.breaker._results  # noqa: SLF001 - what its breaker recorded
    assert counts == any(failed for _, failed in results)


@pytest.mark.parametrize(("kind", "opens"), [("timeout", True), ("rejected", False)])
def test_a_late_call_that_then_fails_counts_once(kind: str, opens: bool) -> None:
    """Five late calls open the breaker; a rejected request shows that the target works and removes the late failure."""
    clock = Clock()
    waiting = candidates(clock, "one", "two")
    breaker = waiting[0].target.breaker
    for _ in range(5):
        assert breaker.is_closed
        retry_state = RetryState("m", waiting, Retries(), RetryBudget(1, clock), deadline=None, clock=clock)
        attempt = retry_state.start_attempt(retry_state.next_candidate(), CALL, AttemptKind.FIRST)
        assert attempt is not None
        retry_state.first_token_late(attempt)
        with suppress(ParleyError):
            retry_state.failed(attempt, FAILURES[kind]())
    assert breaker.is_closed != opens


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
    """A retry whose delay would end past the deadline is skipped, and the next target is tried at once."""
    clock = Clock()
    played = Play({"a": ["unavailable", "…"]}, deadline=clock.now + 0.3, clock=clock).of(candidates(clock, "a", "b"))
    assert (["a", "b"], []) == (played.called, played.pauses)
    clock = Clock()
    played = Play({}, deadline=clock.now, clock=clock).of(candidates(clock, "a"))
    assert (DeadlineExceeded, []) == (type(played.error), played.called)


def test_a_target_with_an_open_breaker_is_skipped() -> None:
    """If all breakers are open, the call fails at once with the time after which to retry."""
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
    assert (AttemptOutcome.CANCELLED, 0) == (attempt.outcome, one.target.breaker._consecutive_failures)  # noqa: SLF001


@pytest.mark.parametrize("kind", ["busy for 60 s", "away for 60 s"])
def test_a_target_gets_no_calls_before_the_end_of_its_retry_after(kind: str) -> None:
    """The hold applies to later calls and to other workers; without another target the error has cause and delay."""
    clock, memory = Clock(), InMemoryState()
    waiting = candidates(clock, "a", "b")
    other = candidates(clock, "a")
    for candidate in (waiting[0], other[0]):
        candidate.target.breaker = Breaker(clock, ProbeSchedule(memory))
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
    one.target.breaker.hold(86400, UpstreamRateLimited)
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
    """A target that answers 500 to its only account gets one call in ten seconds until it recovers."""
    clock = Clock()
    (one,) = candidates(clock, "a")
    upstream = 0
    for _ in range(300):
        upstream += len(Play({"a": ["500", "…"]}, Retries(attempts=1), clock=clock, account="only").of([one]).called)
        clock.now += 0.1
    assert 5 + 2 <= upstream <= 5 + 3
    clock.now += 10
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


def test_a_request_larger_than_a_rate_limit_goes_to_the_next_target() -> None:
    """The next target is tried at once; there is no hold, and the failure does not count."""
    clock = Clock()
    waiting = candidates(clock, "a", "b")
    for _ in range(10):
        assert ["a", "b"] == Play({"a": ["oversized"]}, clock=clock).of(waiting).called
