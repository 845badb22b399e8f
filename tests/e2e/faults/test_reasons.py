"""Targets that are kept away from: for how long, for which callers, and what these read meanwhile."""

import json

from tests.e2e.faults import calling
from tests.e2e.faults.calling import GRPC, REST
from tests.e2e.faults.misbehaving import TEXT, refusal, says
from tests.e2e.faults.targets import Targets
from tests.processes import run_here

BUSY, QUOTA, DOWN = "rate_limit_exceeded", "insufficient_quota", "upstream_unavailable"


def test_a_rate_limit_stays_one_while_it_keeps_calls_away(targets: Targets) -> None:
    """429 for every call, with the time that is left, and one request for the target."""
    targets.does("limited/one", refusal(429, Retry_After="20"))
    for place in range(8):
        rejected = targets.call("limited", REST, is_stream=place % 2 == 0)
        assert (429, BUSY) == (rejected.status, rejected.reason)
        assert 15 < int(rejected.retry_after or 0) <= 20
    assert "UPSTREAM_RATE_LIMITED" == targets.call("limited", GRPC).reason
    assert 1 == len(targets.seen("limited/one"))


def test_an_open_breaker_remembers_a_rate_limit(targets: Targets) -> None:
    """429 without a time opens the breaker; it is 429 then, with the time until the next probe."""
    targets.does("throttled/one", refusal(429))
    for _ in range(6):
        rejected = targets.call("throttled", REST, is_stream=False)
        assert (429, BUSY) == (rejected.status, rejected.reason)
    assert 5 <= len(targets.seen("throttled/one")) <= 8
    assert 1 < int(rejected.retry_after or 0) <= 15


def test_a_used_up_quota_stays_one(targets: Targets) -> None:
    """Its code is OpenAI's, and no time is named at which trying again would help."""
    targets.does("unpaid/one", refusal(429, "Go to https://billing", "billing_hard_limit_reached"))
    first = targets.call("unpaid", REST)
    assert (429, "billing_hard_limit_reached", None) == (first.status, first.reason, first.retry_after)
    for _ in range(6):
        rejected = targets.call("unpaid", REST)
    assert (429, QUOTA, None) == (rejected.status, rejected.reason, rejected.retry_after)
    assert "https" not in first.words + rejected.words
    assert 5 == len(targets.seen("unpaid/one"))
    assert "UPSTREAM_QUOTA_EXHAUSTED" == targets.call("unpaid", GRPC).reason


def test_a_target_that_names_a_time_is_left_alone(targets: Targets) -> None:
    """The next target answers at once, and this and later calls do not ask the first one again."""
    targets.does("waited for/one", refusal(503, Retry_After="120"))
    for place in range(4):
        assert TEXT == targets.call("waited for", REST, is_stream=place % 2 == 0).texts[0]
    assert (1, 4) == (len(targets.seen("waited for/one")), len(targets.seen("waited for/two")))


def test_one_caller_s_bad_parameter_costs_others_nothing(targets: Targets) -> None:
    """A server that answers 500 to it is asked by everybody else as before."""
    targets.does("provoked/one", lambda request: (refusal(500) if "odd" in request.json else says())(request))
    for _ in range(6):
        rejected = targets.call("provoked", REST, is_stream=False, odd="zzz")
        assert (503, DOWN) == (rejected.status, rejected.reason)
    state = str(targets.parley.folder / "state")
    made = run_here("keys", "create", "--name", "x", "--json", "--account", "another", "--state-dir", state)
    key = json.loads(made.stdout)["key"]
    for _ in range(3):
        asked = calling.body("provoked", is_stream=False)
        status, answer = targets.parley.request("POST", "/v1/chat/completions", asked, key)
        assert (200, TEXT) == (status, answer["choices"][0]["message"]["content"])


def test_a_dead_target_is_left_alone_by_its_only_account(targets: Targets) -> None:
    """With one tenant, too: five failures, and it is not asked again for ten seconds."""
    targets.does("dead/one", refusal(500))
    for _ in range(6):
        rejected = targets.call("dead", REST, is_stream=False)
        assert (503, DOWN) == (rejected.status, rejected.reason)
    assert 5 <= len(targets.seen("dead/one")) <= 6
    assert 1 < int(rejected.retry_after or 0) <= 10
