"""Retry delays in each format that vendors use."""

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from parley.backends.errors import retry_delay
from parley.backends.errors.body import read
from parley.backends.errors.classifier import ErrorFactory


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Rate limit reached. Please try again in 20s.", 20.0),
        ("Please try again in 1m12.5s", 72.5),
        ("Please try again in 6ms.", 0.006),
        ("Please try again in 7h12m3s.", 25923.0),
        ("Please retry after 7 seconds.", 7.0),
        ("Please retry in 20.04466179s.", 20.04466179),
        ("please try again after 1 seconds", 1.0),
        ("Try again in 2 minutes", 120.0),
        ("retry after: 30 s", 30.0),
        ("please wait 5 seconds", 5.0),
        ("try again in 90 days", 86400.0),
        ("Please try again in a while.", None),
        ("Please try again later", None),
        ("retry 3 models", None),
        ("Limit 6000, Used 5900, Requested 200", None),
    ],
)
def test_text(message: str, expected: float | None) -> None:
    """A delay in a sentence is parsed."""
    assert expected == retry_delay.from_text(message)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"error": {"details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7s"}]}}, 7.0),
        ({"error": {"details": [{"retryDelay": "0.5s"}]}}, 0.5),
        ({"error": {"message": "x", "retry_after": 12}}, 12.0),
        ({"retry_after_ms": 1500}, 1.5),
        ({"detail": {"retry_after_seconds": 3}}, 3.0),
        ({"error": {"retry_after": True}}, None),
        ({"error": {"retryDelay": "soon"}}, None),
        ({"error": {"message": "slow", "metadata": {"headers": {"X-RateLimit-Reset": "30"}}}}, 30.0),
    ],
)
def test_bodies(error: Any, expected: float | None) -> None:
    """A delay in a field of the body is parsed."""
    assert expected == read(error).retry_after


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "6m0s"}, 360.0),
        (
            {
                "X-RateLimit-Remaining-Requests": "0",
                "X-RateLimit-Reset-Requests": "2m59.56s",
                "x-ratelimit-remaining-tokens": "5000",
                "x-ratelimit-reset-tokens": "1h",
            },
            179.56,
        ),
        ({"x-ratelimit-reset-tokens": "17ms"}, 0.017),
        ({"ratelimit-remaining": "0", "ratelimit-reset": "30"}, 30.0),
        ({"x-ratelimit-remaining-tokens": "5", "x-ratelimit-reset-tokens": "9s"}, None),
        ({"x-ratelimit-reset": "soon"}, None),
        ({}, None),
    ],
)
def test_resets(headers: dict[str, str], expected: float | None) -> None:
    """The reset time of an exhausted limit is parsed from headers."""
    found = retry_delay.until_reset(headers)
    assert expected == (None if found is None else round(found, 6))


@pytest.mark.parametrize(
    "form", [str, lambda at: str(int(at * 1000)), lambda at: datetime.fromtimestamp(at, UTC).isoformat()]
)
def test_resets_at_a_time(form: Any) -> None:
    """A reset may be a Unix time in seconds or milliseconds, or an RFC 3339 date."""
    found = retry_delay.until_reset({"anthropic-ratelimit-tokens-reset": form(time.time() + 100)})
    assert found is not None
    assert 98 < found <= 100


def test_precedence() -> None:
    """`Retry-After` precedes the body, which precedes reset headers; those apply to status 429 only."""
    failures = ErrorFactory(None)
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    headers, body = {"x-ratelimit-reset-requests": "9s"}, b'{"error":{"message":"Please try again in 20s"}}'
    assert 98 < (failures.from_response(429, {"Retry-After": date, **headers}, body, "m").retry_after or 0) <= 100
    assert 20 == failures.from_response(429, headers, body, "m").retry_after
    assert 9 == failures.from_response(429, headers, b"", "m").retry_after
    assert failures.from_response(503, headers, b"", "m").retry_after is None
    assert 20 == failures.from_response(503, {"Retry-After": "20"}, b"", "m").retry_after
