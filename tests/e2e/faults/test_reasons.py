"""Skipped targets: the duration, the affected callers, and the error meanwhile."""

import json

from tests.e2e.faults import calling
from tests.e2e.faults.calling import GRPC, REST
from tests.e2e.faults.scripts import TEXT, answer_text, reject
from tests.e2e.faults.targets import Targets
from tests.processes import run_here

BUSY, QUOTA, DOWN = "rate_limit_exceeded", "insufficient_quota", "upstream_unavailable"


def test_the_error_of_a_held_target_is_its_rate_limit(targets: Targets) -> None:
    """While the target is held, every call is a 429 with the remaining delay, after one request."""
    targets.set_script("limited/one", reject(429, Retry_After="20"))
    for number in range(8):
        rejected = targets.call("limited", REST, is_stream=number % 2 == 0)
        assert (429, BUSY) == (rejected.status, rejected.reason)
        assert 15 < int(rejected.retry_after or 0) <= 20
    assert "UPSTREAM_RATE_LIMITED" == targets.call("limited", GRPC).reason
    assert 1 == len(targets.seen("limited/one"))


def test_the_error_of_an_open_breaker_is_its_rate_limit(targets: Targets) -> None:
    """Responses of 429 without a delay open the breaker; calls are then a 429 with the time until the next probe."""
    targets.set_script("throttled/one", reject(429))
    for _ in range(6):
        rejected = targets.call("throttled", REST, is_stream=False)
        assert (429, BUSY) == (rejected.status, rejected.reason)
    assert 5 <= len(targets.seen("throttled/one")) <= 8
    assert 1 < int(rejected.retry_after or 0) <= 15


def test_the_error_of_an_exhausted_quota(targets: Targets) -> None:
    """The error has OpenAI's code, and no delay, because a retry would not help."""
    targets.set_script("unpaid/one", reject(429, "Go to https://billing", "billing_hard_limit_reached"))
    first = targets.call("unpaid", REST)
    assert (429, "billing_hard_limit_reached", None) == (first.status, first.reason, first.retry_after)
    for _ in range(6):
        rejected = targets.call("unpaid", REST)
    assert (429, QUOTA, None) == (rejected.status, rejected.reason, rejected.retry_after)
    assert "https" not in first.message + rejected.message
    assert 5 == len(targets.seen("unpaid/one"))
    assert "UPSTREAM_QUOTA_EXHAUSTED" == targets.call("unpaid", GRPC).reason


def test_a_target_with_a_retry_delay_is_held(targets: Targets) -> None:
    """The next target answers immediately, and this and later calls skip the first one."""
    targets.set_script("waited for/one", reject(503, Retry_After="120"))
    for number in range(4):
        assert TEXT == targets.call("waited for", REST, is_stream=number % 2 == 0).texts[0]
    assert (1, 4) == (len(targets.seen("waited for/one")), len(targets.seen("waited for/two")))


def test_a_failing_parameter_affects_one_account(targets: Targets) -> None:
    """A server that answers 500 to one account's parameter is still called for other accounts."""
    targets.set_script(
        "provoked/one", lambda request: (reject(500) if "top_k" in request.json else answer_text())(request)
    )
    for _ in range(6):
        rejected = targets.call("provoked", REST, is_stream=False, top_k="zzz")
        assert (503, DOWN) == (rejected.status, rejected.reason)
    state = str(targets.parley.folder / "state")
    made = run_here("keys", "create", "--name", "x", "--json", "--account", "another", "--state-dir", state)
    key = json.loads(made.stdout)["key"]
    for _ in range(3):
        requests = calling.body("provoked", is_stream=False)
        status, answer = targets.parley.request("POST", "/v1/chat/completions", requests, key)
        assert (200, TEXT) == (status, answer["choices"][0]["message"]["content"])


def test_a_failing_target_of_one_account_is_skipped(targets: Targets) -> None:
    """After five failures of its only account, the target is not called for ten seconds."""
    targets.set_script("dead/one", reject(500))
    for _ in range(6):
        rejected = targets.call("dead", REST, is_stream=False)
        assert (503, DOWN) == (rejected.status, rejected.reason)
    assert 5 <= len(targets.seen("dead/one")) <= 6
    assert 1 < int(rejected.retry_after or 0) <= 10
