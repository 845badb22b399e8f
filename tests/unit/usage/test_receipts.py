"""Receipts, whose bytes are those of the message."""

from typing import Any

import pytest

from parley.config import Price
from parley.core.errors import UpstreamTimeout
from parley.core.messages.text_completion import TokenCounts
from parley.core.usage import receipts
from parley.core.usage.attempts import AttemptKind, AttemptOutcome, AttemptRecord
from parley.v1.message_pb2 import PromptTokensDetails, Usage
from parley.v1.receipt_pb2 import Attempt, Receipt

_DETAILS = Usage(prompt_tokens=300, completion_tokens=2, prompt_tokens_details=PromptTokensDetails(cached_tokens=5))
_LARGE = TokenCounts(2**31, 2**31 - 1, 2**32 - 1)
_LARGE_USAGE = Usage(prompt_tokens=2**31, completion_tokens=2**31 - 1, total_tokens=2**32 - 1)
_FIRST: dict[str, Any] = {"model": "m\u00e9", "backend": "b", "kind": "first", "started_ms": 0}


def record(started: float, kind: AttemptKind = AttemptKind.FIRST, target: str = "", **more: Any) -> AttemptRecord:
    """Returns the record of an attempt with a price."""
    call: Any = None
    return AttemptRecord("m\u00e9", "b", target, Price(prompt=1.0, completion=2.0), call, kind, started, **more)


def receipt(*attempts: AttemptRecord) -> Receipt:
    """Returns the receipt of attempts as a message."""
    return Receipt.FromString(receipts.receipt(attempts, *receipts.settle(attempts)))


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, {"duration_ms": 0}),
        ({"ended": 7.1, "outcome": AttemptOutcome.COMPLETED}, {"duration_ms": 100, "outcome": "completed"}),
        ({"ended": 307.0, "first_token": 7.127}, {"duration_ms": 300_000, "first_token_ms": 127}),
        ({"ended": 7.128, "error": UpstreamTimeout("slow")}, {"duration_ms": 128, "reason": "UPSTREAM_TIMEOUT"}),
        ({"target": "x" * 200}, {"duration_ms": 0, "target_model": "x" * 200}),
    ],
)
def test_the_receipt_of_an_attempt(more: dict[str, Any], expected: dict[str, Any]) -> None:
    """An attempt has what is known of it, and nothing else."""
    duration = expected["duration_ms"]
    assert Receipt(attempts=[Attempt(**_FIRST, **expected)], duration_ms=duration) == receipt(record(7.0, **more))


@pytest.mark.parametrize(
    ("used", "usage", "cost"),
    [
        (TokenCounts(3, 2, 5), Usage(prompt_tokens=3, completion_tokens=2, total_tokens=5), 7 / 1e6),
        (_DETAILS, _DETAILS, 304 / 1e6),
        (_LARGE, _LARGE_USAGE, (2**31 + 2 * (2**31 - 1)) / 1e6),
    ],
)
def test_the_usage_of_a_receipt(used: Usage | TokenCounts, usage: Usage, cost: float) -> None:
    """An attempt and the call have the usage with its details, and its price."""
    attempt = Attempt(**_FIRST, duration_ms=0, usage=usage, cost=cost, estimated=True)
    expected = Receipt(attempts=[attempt], usage=usage, cost=cost, duration_ms=0)
    assert expected == receipt(record(7.0, usage=used, estimated=True))


def test_the_receipt_of_several_attempts() -> None:
    """Times count from the first attempt; the sums are those of all attempts, however their usage is recorded."""
    first = record(7.0, ended=9.0, usage=TokenCounts(3, 2, 5))
    second = record(7.25, AttemptKind.HEDGE, ended=8.0, usage=_DETAILS)
    made = receipt(first, second)
    assert [(0, 2000), (250, 750)] == [(one.started_ms, one.duration_ms) for one in made.attempts]
    assert (2000, 303, 4, 5) == (
        made.duration_ms,
        made.usage.prompt_tokens,
        made.usage.completion_tokens,
        made.usage.prompt_tokens_details.cached_tokens,
    )
    assert sum(one.cost for one in made.attempts) == made.cost


def test_a_call_without_attempts_has_a_receipt() -> None:
    """The receipt of a call that no target has admitted has a duration only."""
    assert Receipt(duration_ms=0) == receipt()
