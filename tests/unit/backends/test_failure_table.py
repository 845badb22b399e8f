"""The failure table: every HTTP status from 300 to 599, every known body, and the handling of each."""

import itertools
import json
from typing import Any

import pytest

from parley.backends.errors.body import ErrorBody, read
from parley.backends.errors.classifier import classify
from parley.backends.errors.kinds import STATUSES, Kind, of_status
from parley.backends.errors.known_bodies import BODIES, FALLBACK_ROWS, Row
from parley.core.errors import (
    ContentPolicy,
    ContextLengthExceeded,
    StreamBroken,
    UpstreamError,
    UpstreamMisconfigured,
    UpstreamQuotaExhausted,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
    UpstreamUnrecognized,
)
from parley.core.routing.failure_policy import HealthEffect, NextTargets, Retry, policy_for
from tests.unit.backends.responses import FAILURES, error_for

# Error, retry at the same target, and effect on the target's health. Every other status is UNLISTED.
UNLISTED = (UpstreamUnrecognized, Retry.NO, HealthEffect.SUSPECT)
EXPECTED: dict[int, tuple[type[UpstreamError], Retry, HealthEffect]] = {
    **dict.fromkeys((*range(300, 400), 401, 405, 407), (UpstreamMisconfigured, Retry.NO, HealthEffect.SUSPECT)),
    **dict.fromkeys((426, 505, 511), (UpstreamMisconfigured, Retry.NO, HealthEffect.SUSPECT)),
    **dict.fromkeys((403, 404, 410, 412, 414, 415, 451), (UpstreamMisconfigured, Retry.NO, HealthEffect.SUSPECT)),
    **dict.fromkeys((400, 413, 422, 431), (UpstreamRejected, Retry.NO, HealthEffect.SUSPECT)),
    402: (UpstreamQuotaExhausted, Retry.NO, HealthEffect.SUSPECT),
    429: (UpstreamRateLimited, Retry.BACKOFF, HealthEffect.SUSPECT),
    498: (UpstreamRateLimited, Retry.NO, HealthEffect.NEUTRAL),
    500: (UpstreamUnavailable, Retry.BACKOFF, HealthEffect.SUSPECT),
    **dict.fromkeys((408, 502, 503, 504, 529), (UpstreamUnavailable, Retry.BACKOFF, HealthEffect.SUSPECT)),
    **dict.fromkeys((520, 521, 522, 523, 525, 526), (UpstreamUnavailable, Retry.BACKOFF, HealthEffect.SUSPECT)),
    **dict.fromkeys((527, 530), (UpstreamUnavailable, Retry.BACKOFF, HealthEffect.SUSPECT)),
    **dict.fromkeys((524, 598, 599), (UpstreamTimeout, Retry.NO, HealthEffect.SUSPECT)),
}
BARE: list[Any] = [
    "",
    "no",
    "<html><h1>Error</h1></html>",
    {},
    {"error": {"message": "no"}},
    {"detail": "no"},
    [],
    None,
]


@pytest.mark.parametrize("status", range(300, 600))
def test_every_status(status: int) -> None:
    """Each status has its row or is unlisted; another target is tried in every case, for any body."""
    for body in BARE:
        failed = error_for(status, body)
        row = policy_for(failed)
        assert EXPECTED.get(status, UNLISTED) == (type(failed), row.retry, row.health_effect), body
        assert NextTargets.ANY is row.next
        assert f"HTTP {status}" in (failed.cause or "")


def test_every_listed_status_has_its_source() -> None:
    """Every row names its source."""
    assert [] == [status for status, row in STATUSES.items() if not row.source]
    assert EXPECTED.keys() == STATUSES.keys()
    assert Kind.UNRECOGNIZED is of_status(444).kind


def _status(row: Row) -> int:
    return next(status for status in (400, 429, 403, *sorted(row.statuses)) if status in row.statuses)


@pytest.mark.parametrize(
    "row", [row for row in (*BODIES, *FALLBACK_ROWS) if row.example], ids=lambda row: row.example[:40]
)
def test_example_matches_its_row(row: Row) -> None:
    """The example of a row matches that row and no earlier one, in each format of error bodies."""
    assert row.source
    for shape in (
        row.example,
        {"error": row.example},
        {"error": {"message": row.example}},
        {"type": "error", "error": {"message": row.example}},
        {"detail": row.example},
        {"message": row.example},
        [{"error": {"message": row.example}}],
        {"error": {"message": "Provider returned error", "metadata": {"raw": json.dumps({"message": row.example})}}},
        {"error": {"message": json.dumps({"error": {"message": row.example}})}},
    ):
        assert row is classify(_status(row), read(shape)).row, shape


@pytest.mark.parametrize(
    ("row", "code"), [(row, code) for row in BODIES for code in sorted(row.codes)], ids=lambda value: str(value)[:30]
)
def test_code_matches_its_row(row: Row, code: str) -> None:
    """A code matches its row and no earlier one, as code, type or reason, in either case."""
    for error in (
        {"error": {"message": "no", "code": code}},
        {"error": {"message": "no", "type": code.upper()}},
        {"error": {"message": "no", "details": [{"reason": code.upper()}]}},
        {"error": {"message": "no", "metadata": {"error_type": code}}},
    ):
        assert row.kind is classify(_status(row), read(error)).kind, error


IN_STREAM: list[tuple[Any, type[UpstreamError]]] = [
    ({"code": 429, "message": "x"}, UpstreamRateLimited),
    ({"error": {"code": "429", "message": "x"}}, UpstreamRateLimited),
    ({"error": {"type": "overloaded_error", "message": "Overloaded"}}, UpstreamUnavailable),
    ({"type": "authentication_error", "message": "x"}, UpstreamMisconfigured),
    ({"error": {"type": "insufficient_quota", "message": "x"}}, UpstreamQuotaExhausted),
    ({"code": 8, "status": "RESOURCE_EXHAUSTED", "message": "slow down"}, UpstreamRateLimited),
    ({"code": 8, "message": "slow down"}, UpstreamRateLimited),
    ({"error": {"code": 16, "message": "x"}}, UpstreamMisconfigured),
    ({"error": {"message": "x", "type": "BadRequestError", "param": "temperature", "code": 400}}, UpstreamRejected),
    ({"error": "maximum context length is 8"}, ContextLengthExceeded),
    ("maximum context length is 8", ContextLengthExceeded),
    ({"detail": "maximum context length is 8"}, ContextLengthExceeded),
    ({"error": {"message": "Provider returned error", "code": 429, "metadata": {"raw": "busy"}}}, UpstreamRateLimited),
    (
        {
            "error": {
                "message": "Provider returned error",
                "code": 400,
                "metadata": {"raw": '{"error":{"message":"prompt is too long: 9 > 8","type":"invalid_request_error"}}'},
            }
        },
        ContextLengthExceeded,
    ),
    ({"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}, UpstreamQuotaExhausted),
    ({"__type": "com.amazon.coral.service#ThrottlingException", "message": "x"}, UpstreamRateLimited),
    ({"message": "Out of memory", "type": "server_error", "code": 500}, UpstreamUnavailable),
    ({}, UpstreamUnavailable),
    (None, UpstreamUnavailable),
    ([], UpstreamUnavailable),
    (7, UpstreamUnavailable),
]


@pytest.mark.parametrize(("error", "expected"), IN_STREAM)
def test_an_error_inside_of_an_answer_keeps_its_class(error: Any, expected: type[UpstreamError]) -> None:
    """An error event keeps its class before the first token; later only rejected content does."""
    assert expected is type(FAILURES.from_event(error, "m", started=False))
    assert StreamBroken is type(FAILURES.from_event(error, "m", started=True))


def test_content_rejected_in_mid_stream() -> None:
    """Content rejected in mid-stream is not continued by another target."""
    failed = FAILURES.from_event({"error": {"code": "content_filter", "message": "filtered"}}, "m", started=True)
    assert (ContentPolicy, "filtered") == (type(failed), failed.message)


def test_malformed_bodies() -> None:
    """Bodies of any shape are parsed without an exception."""
    odd: list[Any] = [None, 7, 1.5, True, "x", "", [], [[]], {}, {"a": {}}, [{"error": 5}]]
    for one, other in itertools.product(odd, odd):
        body = {
            "error": {"message": one, "code": other, "type": one, "param": other, "details": [other]},
            "detail": one,
        }
        assert isinstance(error_for(400, body), UpstreamError)
        assert isinstance(read({"error": one, "metadata": other, "message": other, "errors": one}), ErrorBody)
    deep: Any = "x"
    for _ in range(1000):
        deep = {"error": deep}
    assert isinstance(read(deep), ErrorBody)
