"""Errors of the backend for another Parley: reasons, statuses and details."""

import grpc
import pytest

from parley.backends.parley.backend import Parley
from parley.core.errors import (
    ContentPolicy,
    ContextLengthExceeded,
    LoopDetected,
    ParleyError,
    StreamBroken,
    UnsupportedParameter,
    UpstreamMisconfigured,
    UpstreamQuotaExhausted,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
    UpstreamUnrecognized,
)
from parley.v1.error_reason_pb2 import ErrorReason
from tests.contract.backends import KEY, call, failure, words
from tests.contract.parley_vendor import chunks
from tests.contract.scripted_parley import Answer, Refusal, ScriptedParley

REASONS: dict[str, type[ParleyError]] = {
    "INVALID_REQUEST": UpstreamRejected,
    "MISSING_API_KEY": UpstreamMisconfigured,
    "INVALID_API_KEY": UpstreamMisconfigured,
    "PLAN_REQUIRED": UpstreamMisconfigured,
    "ACCOUNT_SUSPENDED": UpstreamMisconfigured,
    "SCOPE_REQUIRED": UpstreamMisconfigured,
    "INVALID_TOKEN": UpstreamMisconfigured,
    "INSUFFICIENT_SCOPE": UpstreamMisconfigured,
    "ISSUER_UNAVAILABLE": UpstreamUnavailable,
    "MODEL_NOT_FOUND": UpstreamMisconfigured,
    "SESSION_NOT_FOUND": UpstreamUnrecognized,
    "SESSION_BUSY": UpstreamUnavailable,
    "UNSUPPORTED_PARAMETER": UnsupportedParameter,
    "CONTEXT_LENGTH_EXCEEDED": ContextLengthExceeded,
    "CONTENT_POLICY": ContentPolicy,
    "UPSTREAM_REJECTED": UpstreamRejected,
    "UPSTREAM_RATE_LIMITED": UpstreamRateLimited,
    "UPSTREAM_UNAVAILABLE": UpstreamUnavailable,
    "UPSTREAM_TIMEOUT": UpstreamTimeout,
    "STREAM_BROKEN": UpstreamUnavailable,
    "DEADLINE_EXCEEDED": UpstreamTimeout,
    "STORE_UNAVAILABLE": UpstreamUnavailable,
    "SHUTTING_DOWN": UpstreamUnavailable,
    "INTERNAL": UpstreamUnavailable,
    "TURN_LOST": UpstreamUnavailable,
    "RATE_LIMITED": UpstreamRateLimited,
    "CONCURRENCY_LIMITED": UpstreamRateLimited,
    "QUOTA_EXHAUSTED": UpstreamQuotaExhausted,
    "STORAGE_LIMIT_EXCEEDED": UpstreamQuotaExhausted,
    "IDEMPOTENCY_KEY_IN_USE": UpstreamUnavailable,
    "IDEMPOTENCY_KEY_REUSED": UpstreamUnrecognized,
    "UPSTREAM_QUOTA_EXHAUSTED": UpstreamQuotaExhausted,
    "UNKNOWN_METHOD": UpstreamMisconfigured,
    "REQUEST_TOO_LARGE": UpstreamRejected,
    "HEADERS_TOO_LARGE": UpstreamRejected,
    "REQUEST_TIMEOUT": UpstreamUnavailable,
    "SERVICE_UNAVAILABLE": UpstreamUnavailable,
    "WORKER_LOST": UpstreamUnavailable,
    "BAD_GATEWAY": UpstreamUnavailable,
    "SERVICE_TIMEOUT": UpstreamTimeout,
    "LOCAL_RESOURCES": UpstreamUnavailable,
    "LOOP_DETECTED": LoopDetected,
    "GUARD_UNAVAILABLE": UpstreamUnavailable,
    "CALL_CANCELLED": UpstreamRejected,
    # Never sent by the methods that the backend calls.
    "KEY_NOT_FOUND": UpstreamUnrecognized,
    "KEY_REVOKED": UpstreamUnrecognized,
    "ACCOUNT_NOT_FOUND": UpstreamUnrecognized,
    "ACCOUNT_EXISTS": UpstreamUnrecognized,
    "INVALID_ADMIN_KEY": UpstreamUnrecognized,
}


def test_every_reason_has_its_row() -> None:
    """The table above covers every documented reason."""
    names = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()}  # noqa: SIM118 - no dict
    assert names - {"UNSPECIFIED"} == set(REASONS)


@pytest.mark.parametrize(("reason", "expected"), REASONS.items())
async def test_reason(backend: Parley, upstream: ScriptedParley, reason: str, expected: type[ParleyError]) -> None:
    """Before the first token, each reason maps to its error, whatever the status."""
    rejected = Answer(chunks(), Refusal(grpc.StatusCode.UNKNOWN, "because", reason))
    upstream.answer(Answer([], rejected.refusal), rejected)
    for stream in (False, True):
        failed = await failure(backend, call(), stream=stream)
        assert expected is type(failed)
        assert ("because" if failed.is_quoted else f"{reason}: because") in words(failed)


@pytest.mark.parametrize("reason", sorted(REASONS.keys() - {"DEADLINE_EXCEEDED"}))
async def test_reason_after_the_first_token(backend: Parley, upstream: ScriptedParley, reason: str) -> None:
    """After the first token, every failure raises StreamBroken."""
    upstream.answer(Answer(chunks("Hel"), Refusal(grpc.StatusCode.INVALID_ARGUMENT, "because", reason)))
    failed = await failure(backend, call(), stream=True)
    assert StreamBroken is type(failed)
    assert "because" in words(failed)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, UpstreamRejected),
        (grpc.StatusCode.OUT_OF_RANGE, UpstreamRejected),
        (grpc.StatusCode.FAILED_PRECONDITION, UpstreamRejected),
        (grpc.StatusCode.UNAUTHENTICATED, UpstreamMisconfigured),
        (grpc.StatusCode.PERMISSION_DENIED, UpstreamMisconfigured),
        (grpc.StatusCode.NOT_FOUND, UpstreamMisconfigured),
        (grpc.StatusCode.UNIMPLEMENTED, UpstreamMisconfigured),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, UpstreamRateLimited),
        (grpc.StatusCode.DEADLINE_EXCEEDED, UpstreamTimeout),
        (grpc.StatusCode.UNAVAILABLE, UpstreamUnavailable),
        (grpc.StatusCode.INTERNAL, UpstreamUnavailable),
        (grpc.StatusCode.UNKNOWN, UpstreamUnavailable),
        (grpc.StatusCode.CANCELLED, UpstreamUnavailable),
        (grpc.StatusCode.ABORTED, UpstreamUnavailable),
        (grpc.StatusCode.DATA_LOSS, UpstreamUnavailable),
    ],
)
async def test_status_without_a_reason(
    backend: Parley, upstream: ScriptedParley, code: grpc.StatusCode, expected: type[ParleyError]
) -> None:
    """Without a known reason, the status decides."""
    upstream.answer(Answer([], Refusal(code, "because")), Answer([], Refusal(code, "because", "FROM_THE_FUTURE")))
    for stream in (False, True):
        failed = await failure(backend, call(), stream=stream)
        assert expected is type(failed)
        assert f"{code.name}: because" in words(failed)


async def test_reason_of_another_domain(backend: Parley, upstream: ScriptedParley) -> None:
    """A reason of another domain is ignored."""
    code = grpc.StatusCode.UNAVAILABLE
    upstream.answer(Answer([], Refusal(code, "no", "CONTENT_POLICY", domain="googleapis.com")))
    assert UpstreamUnavailable is type(await failure(backend, call()))


async def test_request_that_is_too_large(backend: Parley, upstream: ScriptedParley) -> None:
    """A request over the other side's size limit is a rejection, not a rate limit."""
    upstream_call = call(messages=[{"role": "user", "content": "x" * (5 * 1024 * 1024)}])
    failed = await failure(backend, upstream_call)
    assert UpstreamRejected is type(failed)
    assert not upstream.requests


async def test_details_of_a_rejection(backend: Parley, upstream: ScriptedParley) -> None:
    """The rejected field and the upstream's code are forwarded; messages contain the caller's model name."""
    facts = {"param": "messages[0].role", "upstream_code": "bad_role"}
    message = 'The model "target-1" knows no "king"'
    upstream.answer(Answer([], Refusal(grpc.StatusCode.INVALID_ARGUMENT, message, "UPSTREAM_REJECTED", facts=facts)))
    failed = await failure(backend, call())
    assert isinstance(failed, UpstreamRejected)
    assert ('The model "myapp-123" knows no "king"', "messages[0].role", "bad_role") == (
        failed.message,
        failed.param,
        failed.code,
    )


async def test_unsupported_parameter_is_named(backend: Parley, upstream: ScriptedParley) -> None:
    """An unsupported parameter of the other side maps to UnsupportedParameter, so another target is tried."""
    message = '`audio` is not supported by the model "target-1"'
    refusal = Refusal(grpc.StatusCode.INVALID_ARGUMENT, message, "UNSUPPORTED_PARAMETER", facts={"param": "audio"})
    upstream.answer(Answer([], refusal))
    failed = await failure(backend, call())
    assert ('`audio` is not supported by the model "myapp-123"', "audio") == (failed.message, failed.param)


async def test_rejected_continuation(backend: Parley, upstream: ScriptedParley) -> None:
    """An unsupported continuation is a rejection of the call."""
    facts = {"param": "continue_final_message"}
    refusal = Refusal(grpc.StatusCode.INVALID_ARGUMENT, "no", "UNSUPPORTED_PARAMETER", facts=facts)
    upstream.answer(Answer([], refusal), Answer([], refusal))
    assert UpstreamRejected is type(await failure(backend, call(continues=True)))
    assert UnsupportedParameter is type(await failure(backend, call()))


@pytest.mark.parametrize("facts", [{"param": "a\nb", "upstream_code": KEY}, {"param": "x" * 5000}])
async def test_unsafe_details_are_dropped(backend: Parley, upstream: ScriptedParley, facts: dict[str, str]) -> None:
    """Details that are not safe header values, or contain the key, are dropped."""
    upstream.answer(Answer([], Refusal(grpc.StatusCode.INVALID_ARGUMENT, "no", "UPSTREAM_REJECTED", facts=facts)))
    failed = await failure(backend, call())
    assert isinstance(failed, UpstreamRejected)
    assert (None, None) == (failed.param, failed.code)


async def test_malformed_details(backend: Parley, upstream: ScriptedParley) -> None:
    """Malformed details are ignored; the status decides."""

    class Odd(Refusal):
        def trailing(self) -> tuple[tuple[str, str | bytes], ...]:
            return (("grpc-status-details-bin", b"\xff\xff"), ("retry-after", "4"))

    upstream.answer(Answer([], Odd(grpc.StatusCode.RESOURCE_EXHAUSTED, "slow down")))
    failed = await failure(backend, call())
    assert (UpstreamRateLimited, 4.0) == (type(failed), failed.retry_after)
