"""Tests of the log lines of what Envoy refuses, from the lines of its access log."""

from typing import Any

import pytest

from parley.supervisor.refused_calls import event, parse

CALL = {"event": "call", "verb": "POST", "path": "/v1/chat/completions:json", "ms": 7, "client": "10.0.0.1"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            {"http_status": 408, "details": "request_overall_timeout"},
            ("DEADLINE_EXCEEDED", "REQUEST_TIMEOUT", "info"),
        ),
        ({"http_status": 429, "details": "direct_response"}, ("RESOURCE_EXHAUSTED", "RATE_LIMITED", "info")),
        (
            {"http_status": 429, "reason": "TOO_LARGE_IN_PROGRESS"},
            ("RESOURCE_EXHAUSTED", "TOO_LARGE_IN_PROGRESS", "info"),
        ),
        ({"http_status": 503, "details": "no_healthy_upstream"}, ("UNAVAILABLE", "SERVICE_UNAVAILABLE", "warning")),
        ({"http_status": 503, "details": "overload"}, ("UNAVAILABLE", "SERVICE_UNAVAILABLE", "warning")),
        (
            {"http_status": 503, "details": "upstream_reset_before_response_started{connection_termination}"},
            ("UNAVAILABLE", "WORKER_LOST", "warning"),
        ),
        (
            {"http_status": 200, "details": "upstream_reset_after_response_started{connection_termination}"},
            ("UNAVAILABLE", "WORKER_LOST", "warning"),
        ),
        ({"http_status": 200, "grpc_status": 8, "details": "x"}, ("RESOURCE_EXHAUSTED", "REQUEST_TOO_LARGE", "info")),
        ({"http_status": 0, "details": "downstream_remote_disconnect"}, ("CANCELLED", "CONNECTION_CLOSED", "info")),
    ],
)
def test_a_refused_call_has_status_reason_and_level(line: dict[str, Any], expected: tuple[str, str, str]) -> None:
    """The reason is that of the API; only what a caller cannot mend is a warning."""
    found = event(CALL | line)
    assert expected == (found["status"], found["reason"], found["level"])
    assert ("POST /v1/chat/completions", "10.0.0.1", "envoy", 7) == (
        found["method"],
        found["client"],
        found["refused_by"],
        found["ms"],
    )


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"details": "rbac_access_denied_matched_policy[none]"}, "CONNECTION_LIMITED"),
        ({"details": "connection_closed"}, "CONNECTION_CLOSED"),
        ({"tls": "TLS_error: WRONG_VERSION_NUMBER"}, "TLS_FAILED"),
    ],
)
def test_a_refused_connection_has_its_reason(line: dict[str, Any], reason: str) -> None:
    """A connection above the limit of its address, one that ends, and a failed handshake differ."""
    found = event({"event": "connection", "client": "10.0.0.1"} | line)
    assert (reason, "info", "connection refused") == (found["reason"], found["level"], found["event"])


@pytest.mark.parametrize("line", ["[warning] text", '{"other": 1}', '{"event"', "[1]"])
def test_other_lines_of_envoy_are_no_events(line: str) -> None:
    """Envoy's own log lines, and what is no line of the access log, are no events."""
    assert parse(line) is None
