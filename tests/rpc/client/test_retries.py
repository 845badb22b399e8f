"""parley-client and a server that fails as the test says: what is retried, and after what delay."""

from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

import parley_client
from parley_client import Client
from parley_client.retry import SERVICE_CONFIG
from tests.rpc.client.conftest import Connect, Events
from tests.rpc.client.failing_server import FailingServer, Failure

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
ABORTED = grpc.StatusCode.ABORTED
INTERNAL = grpc.StatusCode.INTERNAL
NOW: dict[str, str | bytes] = {"grpc-retry-pushback-ms": "0"}


def details(reason: str, delay: float | None = None) -> dict[str, str | bytes]:
    """Returns the details of an error, as metadata."""
    status = status_pb2.Status()
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain="parley"))
    if delay is not None:
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=Duration(nanos=int(delay * 1e9))))
    return {"grpc-status-details-bin": status.SerializeToString()}


@pytest.fixture
def client(server: FailingServer, connect: Connect) -> Any:
    """A client of the failing server."""
    return connect(server.address, "sk-key")


@pytest.mark.parametrize(
    "failure",
    [
        (UNAVAILABLE, {}),
        (UNAVAILABLE, NOW),
        (UNAVAILABLE, details("SHUTTING_DOWN", 0.01)),
        (ABORTED, details("SESSION_BUSY")),
        (EXHAUSTED, details("RATE_LIMITED", 0.01)),
        (INTERNAL, {}),  # a connection that was reset in mid-stream
    ],
)
def test_a_transient_failure_is_retried_under_the_same_key(
    server: FailingServer, client: Any, failure: Failure, events: Events
) -> None:
    """The second attempt has the idempotency key of the first; the retry is logged."""
    server.failures = [failure]
    assert "answer" == client.chat.create("Hi").raw.id
    keys = [call["idempotency-key"] for call in server.calls]
    assert (2, 1) == (len(keys), len(set(keys)))
    assert ["parley retry", "parley call"] == [event for event, _ in events]
    assert (failure[0].name, 1, 2) == (events[0][1]["code"], events[0][1]["attempt"], events[1][1]["attempts"])


@pytest.mark.parametrize(
    "failure",
    [
        (UNAVAILABLE, {"grpc-retry-pushback-ms": "-1"}),
        (UNAVAILABLE, {"grpc-retry-pushback-ms": "soon"}),
        (UNAVAILABLE, {"grpc-retry-pushback-ms": "60000"}),
        (UNAVAILABLE, details("UPSTREAM_UNAVAILABLE", 0.01) | {"grpc-retry-pushback-ms": "-1"}),
        (UNAVAILABLE, {"retry-after": "60"}),
        (UNAVAILABLE, {"retry-after": "9" * 400}),
        (EXHAUSTED, {}),  # a message above a limit of gRPC
        (EXHAUSTED, details("UPSTREAM_QUOTA_EXHAUSTED", 0.01)),
        (INTERNAL, details("INTERNAL")),
        (grpc.StatusCode.DEADLINE_EXCEEDED, details("UPSTREAM_TIMEOUT")),
        (grpc.StatusCode.NOT_FOUND, details("MODEL_NOT_FOUND")),
    ],
)
def test_other_failures_are_not_retried(server: FailingServer, client: Any, failure: Failure) -> None:
    """A failure that the service forbids to retry, or for which it names too long a delay, is raised at once."""
    server.failures = [failure]
    with pytest.raises(parley_client.ParleyError) as caught:
        client.chat.create("Hi")
    assert (failure[0], 1) == (caught.value.code, len(server.calls))


def test_attempts_are_bounded_as_in_the_recommended_service_config(server: FailingServer, client: Any) -> None:
    """After the most attempts of the shared policy the failure is raised."""
    server.failures = [(UNAVAILABLE, NOW)] * 9
    with pytest.raises(parley_client.UnavailableError):
        client.chat.create("Hi")
    assert SERVICE_CONFIG["methodConfig"][0]["retryPolicy"]["maxAttempts"] == len(server.calls)


def test_a_large_request_is_retried(server: FailingServer, client: Any) -> None:
    """A request that gRPC's own retries do not buffer is retried."""
    server.failures = [(UNAVAILABLE, NOW)]
    assert "answer" == client.chat.create("x" * 1_000_000).raw.id


def test_malformed_details_do_not_hide_the_failure(server: FailingServer, client: Any) -> None:
    """Details that cannot be read are ignored."""
    metadata: dict[str, str | bytes] = {
        "grpc-status-details-bin": b"\xff",
        "parley-receipt-bin": b"\xff",
        "x-ratelimit-limit-requests": "many",
    }
    server.failures = [(grpc.StatusCode.INVALID_ARGUMENT, metadata)]
    with pytest.raises(parley_client.InvalidRequestError, match="INVALID_ARGUMENT: failed") as caught:
        client.chat.create("Hi")
    assert (None, None, None) == (caught.value.reason, caught.value.receipt, caught.value.limits)


def test_limits_are_typed(server: FailingServer, client: Any) -> None:
    """The rate limits of a failed call have numbers, and durations in seconds."""
    metadata: dict[str, str | bytes] = {
        f"x-ratelimit-{what}-{kind}": value
        for kind, reset in (("requests", "6m0.5s"), ("tokens", "20ms"))
        for what, value in (("limit", "60"), ("remaining", "0"), ("reset", reset))
    }
    server.failures = [(EXHAUSTED, metadata)]
    with pytest.raises(parley_client.RateLimitError) as caught:
        client.chat.create("Hi")
    limits = caught.value.limits
    assert limits is not None
    assert (parley_client.RateLimit(60, 0, 360.5), parley_client.RateLimit(60, 0, 0.02)) == (
        limits.requests,
        limits.tokens,
    )


def test_the_caller_is_named(server: FailingServer) -> None:
    """The user agent names the client; metadata of the caller's own is sent with each call."""
    with Client(server.address, key="sk-key", metadata=[("x-correlation-id", "chain")]) as client:
        client.chat.create("Hi")
    [call] = server.calls
    assert call["user-agent"].startswith("parley-client/")
    assert ("Bearer sk-key", "chain") == (call["authorization"], call["x-correlation-id"])
