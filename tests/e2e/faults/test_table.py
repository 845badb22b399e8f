"""When a backend fails: every row, seen from both sides."""

from collections import Counter
from typing import Any

import grpc
import pytest

from parley.v1.receipt_pb2 import Attempt, Receipt
from tests.e2e.faults import cases, misbehaving
from tests.e2e.faults.calling import REST, Outcome
from tests.e2e.faults.cases import BROKEN, BUSY, CONTEXT, DOWN, POLICY, QUOTA, REJECTED, SLOW, STREAMED, Got, Refused
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
"""What OpenAI calls it, where that is not our own word."""

every_run = pytest.mark.parametrize("run", RUNS, ids=lambda run: run.model)


@every_run
def test_the_caller_gets_the_whole_answer_or_the_honest_error(faults: Faults, run: Trial) -> None:
    """The complete answer wherever one can be had, in the shape of one; else the error that says what is wrong."""
    outcome, gets = faults.outcome(run), run.case.gets
    if isinstance(gets, Refused):
        _check_error(run, outcome, gets)
    else:
        _check_answer(run, outcome, gets)
    if run.way == STREAMED and outcome.chunks:
        _check_shape(outcome, non_streaming=isinstance(gets, Got))


def _check_answer(run: Trial, outcome: Outcome, gets: Got) -> None:
    assert (None, "") == (outcome.reason, outcome.words)
    assert list(gets.texts) == [outcome.texts[index] for index in sorted(outcome.texts)]
    assert [gets.finish] * len(gets.texts) == outcome.finishes
    assert (200 if run.transport == REST else CODES.OK) == outcome.status
    assert outcome.is_ended == (run.way == STREAMED)
    if run.case.asks.get("logprobs"):
        assert list(gets.texts) == [outcome.tokens[index] for index in sorted(outcome.tokens)]


def _check_error(run: Trial, outcome: Outcome, gets: Refused) -> None:
    status, code = STATUS[gets.reason]
    started = bool(outcome.chunks)
    assert list(gets.said if run.way == STREAMED else ()) == [text for text in outcome.texts.values() if text]
    assert [] == outcome.finishes
    assert not outcome.is_ended
    assert gets.words in outcome.words
    assert "sk-secret" not in outcome.words
    if run.transport == REST:
        assert (CODE.get(gets.reason, gets.reason.lower()), 200 if started else status) == (
            outcome.reason,
            outcome.status,
        )
    else:
        assert (gets.reason, code) == (outcome.reason, outcome.status)
    if gets.retry_after and not started:
        assert gets.retry_after == outcome.retry_after


def _check_shape(outcome: Outcome, *, non_streaming: bool) -> None:
    """One stream, whoever said it: one id, each choice begins once and ends once, usage at the end."""
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
def test_the_targets_see_no_more_than_the_table_allows(faults: Faults, run: Trial) -> None:
    """Each is asked as often as it may be, in order, with the conversation, and with what was delivered or without."""
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
        started = misbehaving.prefill_text(request)
        assert delivered == bool(started)
        assert misbehaving.TEXT.startswith(started)
        assert not delivered or len(started) >= len(misbehaving.HALF)
        assert run.case.asks.items() <= request.json.items()


@every_run
def test_the_receipt_tells_what_was_tried(faults: Faults, run: Trial) -> None:
    """Every attempt with its kind and outcome; the sums of tokens are those that the caller is told."""
    outcome = faults.outcome(run)
    if run.transport == REST and outcome.reason is not None:
        return  # it is with the turn, whose id no error tells
    assert outcome.receipt is not None
    assert list(run.case.tried) == [_line(attempt) for attempt in outcome.receipt.attempts]
    if outcome.reason is None:
        assert outcome.receipt.usage.total_tokens == outcome.total_tokens
        assert _answering(outcome.receipt).model == outcome.model
    _check_times(outcome.receipt, run.case)


def test_a_refused_key_is_logged_as_a_misconfiguration(faults: Faults) -> None:
    """Whoever looks after Parley finds the target and what it said; no key is in it."""
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
    """Attempts follow one another; one that repeats another has waited as it should, unless it asks in another way."""
    ended, reason = 0, ""
    asks_otherwise = misbehaving.streams_not in (*case.primary, *(case.fallback or ()))
    for attempt in receipt.attempts:
        pause = attempt.started_ms - ended
        if attempt.kind == "retry" and reason != REJECTED and not asks_otherwise:
            assert pause >= 1000 * (case.waits or 0.2) - 2
        else:
            assert pause >= -2  # each time is rounded
        ended, reason = attempt.started_ms + attempt.duration_ms, attempt.reason
    assert receipt.duration_ms >= ended - 2
