"""parley-client and a server that fails as the test says: what is retried, and after what delay."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

import parley_client
from parley.v1.chat_completions_pb2 import ChatCompletion
from parley_client import Client, Retry
from parley_client.retry import SERVICE_CONFIG

Failure = tuple[grpc.StatusCode, Mapping[str, str | bytes]]
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


class FailingServer(grpc.GenericRpcHandler):
    """Fails calls as `failures` says, one after the other, and then answers. `calls` has the metadata of each call."""

    def __init__(self) -> None:
        self.failures: list[Failure] = []
        self.calls: list[dict[str, Any]] = []
        self._server = grpc.server(ThreadPoolExecutor(2), handlers=[self])
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def service(self, handler_call_details: Any) -> Any:
        """Returns the handler of every method of Parley; there is no health service."""
        if not handler_call_details.method.startswith("/parley."):
            return None
        return grpc.unary_unary_rpc_method_handler(self._answer)

    def stop(self) -> None:
        """Stops it."""
        self._server.stop(0)

    def _answer(self, _: bytes, context: grpc.ServicerContext) -> bytes:
        self.calls.append(dict(context.invocation_metadata()))
        if self.failures:
            code, metadata = self.failures.pop(0)
            context.set_trailing_metadata(tuple(metadata.items()))
            context.abort(code, "failed")
        return ChatCompletion(id="answer").SerializeToString()


@pytest.fixture
def server() -> Iterator[FailingServer]:
    """The server."""
    made = FailingServer()
    yield made
    made.stop()


@pytest.fixture
def client(server: FailingServer) -> Iterator[Client]:
    """A client that waits briefly where the server names no delay."""
    with Client(server.address, key="sk-key", retry=Retry(initial_delay=0.01)) as made:
        yield made


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
    server: FailingServer, client: Client, failure: Failure
) -> None:
    """The second attempt has the idempotency key of the first."""
    server.failures = [failure]
    assert "answer" == client.chat.create("Hi").raw.id
    keys = [call["idempotency-key"] for call in server.calls]
    assert (2, 1) == (len(keys), len(set(keys)))


@pytest.mark.parametrize(
    "failure",
    [
        (UNAVAILABLE, {"grpc-retry-pushback-ms": "-1"}),
        (UNAVAILABLE, {"grpc-retry-pushback-ms": "soon"}),
        (UNAVAILABLE, {"grpc-retry-pushback-ms": "60000"}),
        (UNAVAILABLE, details("UPSTREAM_UNAVAILABLE", 0.01) | {"grpc-retry-pushback-ms": "-1"}),
        (UNAVAILABLE, {"retry-after": "60"}),
        (EXHAUSTED, {}),  # a message above a limit of gRPC
        (EXHAUSTED, details("UPSTREAM_QUOTA_EXHAUSTED", 0.01)),
        (INTERNAL, details("INTERNAL")),
        (grpc.StatusCode.DEADLINE_EXCEEDED, details("UPSTREAM_TIMEOUT")),
        (grpc.StatusCode.NOT_FOUND, details("MODEL_NOT_FOUND")),
    ],
)
def test_other_failures_are_not_retried(server: FailingServer, client: Client, failure: Failure) -> None:
    """A failure that the service forbids to retry, or for which it names too long a delay, is raised at once."""
    server.failures = [failure]
    with pytest.raises(parley_client.ParleyError) as caught:
        client.chat.create("Hi")
    assert (failure[0], 1) == (caught.value.code, len(server.calls))


def test_attempts_are_bounded_as_in_the_recommended_service_config(server: FailingServer, client: Client) -> None:
    """After the most attempts of the shared policy the failure is raised."""
    server.failures = [(UNAVAILABLE, NOW)] * 9
    with pytest.raises(parley_client.UnavailableError):
        client.chat.create("Hi")
    assert SERVICE_CONFIG["methodConfig"][0]["retryPolicy"]["maxAttempts"] == len(server.calls)


def test_a_large_request_is_retried(server: FailingServer, client: Client) -> None:
    """A request that gRPC's own retries do not buffer is retried."""
    server.failures = [(UNAVAILABLE, NOW)]
    assert "answer" == client.chat.create("x" * 1_000_000).raw.id


def test_malformed_details_do_not_hide_the_failure(server: FailingServer, client: Client) -> None:
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


def test_limits_are_typed(server: FailingServer, client: Client) -> None:
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
