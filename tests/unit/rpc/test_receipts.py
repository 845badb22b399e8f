"""Receipts in trailing metadata and in the log line."""

import json
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict

from parley.config import Timeouts
from parley.core.call import CallOutcome
from parley.core.errors import UpstreamUnavailable
from parley.core.ports import UpstreamCall
from parley.core.usage.attempts import AttemptKind, AttemptOutcome, AttemptRecord
from parley.rpc.metadata import receipts
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.message_pb2 import PromptTokensDetails, Usage
from parley.v1.receipt_pb2 import Attempt, Receipt

DONE: dict[str, Any] = {"backend": "b", "target_model": "x", "kind": "first", "outcome": "completed"}
FAILED: dict[str, Any] = {"kind": "first", "outcome": "failed", "reason": "UPSTREAM_UNAVAILABLE", "duration_ms": 12}


def made(*attempts: dict[str, Any], **more: Any) -> Receipt:
    """Returns a receipt of the attempts."""
    receipt = Receipt(duration_ms=34, **more)
    for attempt in attempts:
        receipt.attempts.add(**{"model": "m", "backend": "a", "duration_ms": 0, **attempt})
    return receipt


def records(receipt: Receipt, cause: str | None = None) -> list[AttemptRecord]:
    """Returns the records of a receipt's attempts; a failed one has an error with the cause."""
    request = UpstreamCall(CreateChatCompletionRequest(), "m", Timeouts())
    return [
        AttemptRecord(
            model_id="m",
            backend=one.backend,
            target_model=one.target_model,
            price=None,
            call=request,
            kind=AttemptKind(one.kind),
            started=0.0,
            ended=one.duration_ms / 1000,
            outcome=AttemptOutcome(one.outcome),
            error=UpstreamUnavailable("down", cause=cause) if one.outcome == "failed" else None,
        )
        for one in receipt.attempts
    ]


def sent(receipt: Receipt | None) -> Receipt:
    """Returns the receipt as its caller decodes it."""
    ((key, data),) = receipts.metadata(receipt and receipt.SerializeToString())
    assert "parley-receipt-bin" == key
    assert isinstance(data, bytes)
    return Receipt.FromString(data)


def test_a_short_receipt_is_sent_unchanged() -> None:
    """A short receipt is sent unchanged; a call without a receipt has no metadata for it."""
    receipt = made(FAILED, DONE, cost=0.00021, usage=Usage(total_tokens=134))
    assert receipt == sent(receipt)
    assert () == receipts.metadata(None)


@pytest.mark.parametrize(("name", "least"), [("m", 30), ("m" * 200, 5), ("m" * 3000, 0)])
def test_a_long_receipt_is_cut(name: str, least: int) -> None:
    """A long receipt is cut after its first attempt and counts the attempts left out; its sums are unchanged."""
    receipt = made(*[FAILED | {"model": name, "started_ms": started_ms} for started_ms in range(100)], cost=0.5)
    got = sent(receipt)
    assert got.ByteSize() <= 2048
    assert (0.5, 34) == (got.cost, got.duration_ms)
    assert 100 == len(got.attempts) + got.left_out == len(receipt.attempts)
    latest = list(range(100))[100 - len(got.attempts) + 1 :]
    assert ([0, *latest] if least else []) == [attempt.started_ms for attempt in got.attempts]
    assert least <= len(got.attempts)


def test_a_readable_receipt_is_cut_like_the_bytes() -> None:
    """The longest text is short enough for the metadata, and names of any script are escaped."""
    attempts = [Attempt(model="m\u00e9\U0001f600", backend="b" * 99, kind="retry", outcome="failed")] * 100
    [(_, text)] = receipts.metadata(Receipt(attempts=attempts).SerializeToString(), "json")
    receipt = ParseDict(json.loads(text), Receipt())
    assert text.isascii()
    assert len(text) < 2800
    assert 100 == len(receipt.attempts) + receipt.left_out
    assert "m\u00e9\U0001f600" == receipt.attempts[0].model


def test_unknown_fields_of_a_usage_are_cut_first() -> None:
    """Unknown fields of a usage are cut first: the answer has them, and trailing metadata must stay small."""
    usage = Usage(prompt_tokens=5, extra_json='{"n":' + "9" * 5000 + "}")
    usage.prompt_tokens_details.extra_json = usage.extra_json
    cut = sent(made(DONE | {"usage": usage}, usage=usage))
    assert (Usage(prompt_tokens=5, prompt_tokens_details=PromptTokensDetails()), 0) == (cut.usage, cut.left_out)
    assert [cut.usage] == [attempt.usage for attempt in cut.attempts]
    assert not sent(made(*[FAILED] * 100)).HasField("usage")


def test_cost_details_of_a_vendor_are_cut() -> None:
    """Cost details of a vendor are cut where they alone are too long; the tokens are kept."""
    usage = Usage(total_tokens=9)
    usage.cost_details.update({f"detail-{number}": number for number in range(500)})
    assert (9, False) == ((got := sent(made(usage=usage)).usage).total_tokens, got.HasField("cost_details"))


def logged(receipt: Receipt, cause: str | None = None) -> dict[str, Any]:
    """Returns the fields of the log line of a call with this receipt."""
    attempts = records(receipt, cause)
    cost = receipt.cost if receipt.HasField("cost") else None
    fields: dict[str, Any] = {}
    receipts.add_fields(fields, CallOutcome(attempts=attempts, cost=cost, duration_ms=receipt.duration_ms))
    return fields


@pytest.mark.parametrize(
    ("receipt", "expected"),
    [
        (made(DONE), {"target": "b/x", "upstream_ms": 34}),
        (made(DONE | {"target_model": None}, cost=0.1 + 0.2), {"target": "b", "cost": 0.3, "upstream_ms": 34}),
        (made(DONE, DONE | {"backend": "c"}), {"target": "c/x", "upstream_ms": 34, "attempts": 2}),
        (made(), {}),
    ],
)
def test_the_log_fields_of_a_successful_call(receipt: Receipt, expected: dict[str, Any]) -> None:
    """The log line of a successful call has the target, the cost and the duration, and no attempts."""
    assert expected == logged(receipt)


def test_the_log_fields_of_a_failed_call() -> None:
    """The log line of a failed call has each attempt with its reason, and the cause, which only the operator sees."""
    lost = {"kind": "hedge", "outcome": "cancelled", "duration_ms": 5}
    assert {
        "target": "b/x",
        "upstream_ms": 34,
        "attempts": 3,
        "tried": [
            {
                "target": "a",
                "kind": "first",
                "outcome": "failed",
                "reason": "UPSTREAM_UNAVAILABLE",
                "ms": 12,
                "cause": "10.0.0.5 refused",
            },
            {"target": "a", "kind": "hedge", "outcome": "cancelled", "ms": 5},
        ],
    } == logged(made(FAILED, DONE, lost), "10.0.0.5 refused")
    failed = logged(made(FAILED))
    assert ("target" in failed, failed["attempts"]) == (False, 1)
