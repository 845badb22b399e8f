"""Every row of the table of failures, from the caller's and the upstreams' side."""

from collections import Counter
from typing import Any

import grpc
import pytest

from parley.v1.receipt_pb2 import Attempt, Receipt
from tests.e2e.faults import cases, scripts
from tests.e2e.faults.calling import REST, Outcome
from tests.e2e.faults.cases import (
    BROKEN,
    BUSY,
    CONTEXT,
    DOWN,
    POLICY,
    QUOTA,
    REJECTED,
    SLOW,
    STREAMED,
    ExpectedAnswer,
    ExpectedError,
)
from tests.e2e.faults.conftest import RUNS, Faults, Trial

CODES = grpc.StatusCode
STATUS = {
    DOWN: (503, CODES.UNAVAILABLE),
    SLOW: (504, CODES.DEADLINE_EXCEEDED),
    BUSY: (429, CODES.RESOURCE_EXHAUSTED),
    CONTEXT: (400, CODES.INVALID_ARGUMENT),
    POLICY: (400, CODES.INVALID_ARGUMENT),
    REJECTED: (400, CODES.INVALID_ARGUMENT),
    BROKEN: (503, CODES.UNAVAILABLE),
    QUOTA: (429, CODES.RESOURCE_EXHAUSTED),
}
CODE = {BUSY: "rate_limit_exceeded", POLICY: "content_filter", QUOTA: "insufficient_quota"}
"""OpenAI's code, if it differs from Parley's."""

every_run = pytest.mark.parametrize("run", RUNS, ids=lambda run: run.model)


@every_run
def test_the_result_is_a_complete_answer_or_the_expected_error(faults: Faults, run: Trial) -> None:
    """The result of each row is the expected complete answer, or the expected error."""
    outcome, expected = faults.outcome(run), run.case.expected
    if isinstance(expected, ExpectedError):
        _check_error(run, outcome, expected)
    else:
        _check_answer(run, outcome, expected)
    if run.mode == STREAMED and outcome.chunks:
        _check_shape(outcome, non_streaming=isinstance(expected, ExpectedAnswer))


def _check_answer(run: Trial, outcome: Outcome, expected: ExpectedAnswer) -> None:
    assert (None, "") == (outcome.reason, outcome.message)
    assert list(expected.texts) == [outcome.texts[index] for index in sorted(outcome.texts)]
    assert [expected.finish] * len(expected.texts) == outcome.finishes
    assert (200 if run.transport == REST else CODES.OK) == outcome.status
    assert outcome.is_ended == (run.mode == STREAMED)
    if run.case.fields.get("logprobs"):
        assert list(expected.texts) == [outcome.tokens[index] for index in sorted(outcome.tokens)]


def _check_error(run: Trial, outcome: Outcome, expected: ExpectedError) -> None:
    status, code = STATUS[expected.reason]
    started = bool(outcome.chunks)
    assert list(expected.delivered if run.mode == STREAMED else ()) == [text for text in outcome.texts.values() if text]
    assert [] == outcome.finishes
    assert not outcome.is_ended
    assert expected.message in outcome.message
    assert "sk-secret" not in outcome.message
    if run.transport == REST:
        assert (CODE.get(expected.reason, expected.reason.lower()), 200 if started else status) == (
            outcome.reason,
            outcome.status,
        )
    else:
        assert (expected.reason, code) == (outcome.reason, outcome.status)
    if expected.retry_after and not started:
        assert expected.retry_after == outcome.retry_after


def _check_shape(outcome: Outcome, *, non_streaming: bool) -> None:
    """Checks that a stream has one id, that each choice begins and ends once, and that usage is last."""
    chunks = outcome.chunks
    assert 1 == len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks})
    choices = [choice for chunk in chunks for choice in chunk.get("choices", ())]
    first: dict[int, Any] = {}
    for choice in choices:
        first.setdefault(choice.get("index", 0), choice)
    roles = Counter(choice.get("index", 0) for choice in choices if "role" in choice["delta"])
    assert dict.fromkeys(first, 1) == roles
    assert all("role" in choice["delta"] for choice in first.values())
    if non_streaming:
        assert [] == chunks[-1].get("choices", [])
        assert len(first) == len(outcome.finishes)


@every_run
def test_the_requests_at_the_targets(faults: Faults, run: Trial) -> None:
    """Each target receives the expected requests in order, with the conversation, and the prefill if continued."""
    faults.outcome(run)
    tried = [line.split() for line in run.case.tried]
    expected = [name for name, _, _ in tried if run.case.is_listening or name != "primary"]
    seen = faults.seen(run)
    assert expected == [request.json["model"].rpartition("/")[2] for request in seen]
    delivered = False
    for (_, kind, _), request in zip(tried[len(tried) - len(seen) :], seen, strict=True):
        delivered = kind == "continuation" or (kind == "retry" and delivered and "stream" in request.json)
        assert "Count to sixty." == request.json["messages"][0]["content"]
        assert (2 if delivered else 1) == len(request.json["messages"])
        started = scripts.prefill_text(request)
        assert delivered == bool(started)
        assert scripts.TEXT.startswith(started)
        assert not delivered or len(started) >= len(scripts.HALF)
        assert run.case.fields.items() <= request.json.items()


@every_run
def test_the_receipt_has_the_attempts(faults: Faults, run: Trial) -> None:
    """The receipt has each attempt with kind and outcome, and the total usage that the caller gets."""
    outcome = faults.outcome(run)
    if run.transport == REST and outcome.reason is not None:
        return  # an error has no id of the turn that stores it
    assert outcome.receipt is not None
    assert list(run.case.tried) == [_line(attempt) for attempt in outcome.receipt.attempts]
    if outcome.reason is None:
        assert outcome.receipt.usage.total_tokens == outcome.total_tokens
        assert _answering(outcome.receipt).model == outcome.model
    _check_times(outcome.receipt, run.case)


def test_a_rejected_key_is_logged_as_a_misconfiguration(faults: Faults) -> None:
    """The log line has the target and its response, and no key."""
    run = next(run for run in RUNS if run.name == "401, alone")
    faults.outcome(run)
    faults.parley.wait_for_log(f"{run.model}/primary")
    [line] = [line for line in faults.parley.log.splitlines() if "misconfigured" in line and run.model in line]
    assert "HTTP 401" in line
    assert "sk-secret" not in line


def _answering(receipt: Receipt) -> Attempt:
    """Returns the attempt with which the answer begins."""
    last = receipt.attempts[-1]
    if last.kind in {"continuation", "skip_prefix"}:
        return next(one for one in receipt.attempts if one.HasField("first_token_ms"))
    return last


def _line(attempt: Attempt) -> str:
    target = attempt.target_model.rpartition("/")[2]
    return f"{target} {attempt.kind} {attempt.reason if attempt.outcome == 'failed' else attempt.outcome}"


def _check_times(receipt: Receipt, case: cases.Case) -> None:
    """Checks that attempts are consecutive, and that a retry of the same request has its delay."""
    ended, reason = 0, ""
    changes_request = scripts.reject_streaming in (*case.primary, *(case.fallback or ()))
    for attempt in receipt.attempts:
        pause = attempt.started_ms - ended
        if attempt.kind == "retry" and reason != REJECTED and not changes_request:
            assert pause >= 1000 * (case.delay or 0.2) - 2
        else:
            assert pause >= -2  # each time is rounded
        ended, reason = attempt.started_ms + attempt.duration_ms, attempt.reason
    assert receipt.duration_ms >= ended - 2
