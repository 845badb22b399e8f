"""Errors as clients receive them, and handlers that fail like the service."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import grpc
from google.api.httpbody_pb2 import HttpBody

from parley.v1.chat_completions_pb2 import ChatCompletion, CreateChatCompletionRequest
from tests.edge.worker import Context

PATHS = {
    "openai": "/v1/chat/completions",
    "chipp": "/api/v1/chat/completions",
    "upchatty": "/upchatty/api/v1/chat/completions",
    "fastapi": "/fastapi/api/v1/chat/completions",
    "openpipe": "/openpipe/api/v1/chat/completions",
}
SHOWN = ("content-type", "retry-after", "x-should-retry", "allow", "www-authenticate")
STATUS = grpc.StatusCode
REQUEST = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}

# Reason, status, message, param and retry delay in seconds, as the service sends them. All but UNSPECIFIED.
REASONS: list[tuple[str, grpc.StatusCode, str, str | None, str | None]] = [
    ("INVALID_REQUEST", STATUS.INVALID_ARGUMENT, "`messages[0].role` must be one of: user", "messages[0].role", None),
    ("UNSUPPORTED_PARAMETER", STATUS.INVALID_ARGUMENT, "`audio` is not supported by the model", "audio", None),
    ("CONTEXT_LENGTH_EXCEEDED", STATUS.INVALID_ARGUMENT, "the request (9120 tokens) exceeds 8192 tokens", None, None),
    ("CONTENT_POLICY", STATUS.INVALID_ARGUMENT, "Your request was rejected by the safety system", None, None),
    ("UPSTREAM_REJECTED", STATUS.INVALID_ARGUMENT, "This model does not support tools", None, None),
    ("MISSING_API_KEY", STATUS.UNAUTHENTICATED, "Missing API key", None, None),
    ("INVALID_API_KEY", STATUS.UNAUTHENTICATED, "Invalid API key", None, None),
    (
        "PLAN_REQUIRED",
        STATUS.PERMISSION_DENIED,
        "This API is only available on a paid plan. Visit your dashboard to upgrade.",
        None,
        None,
    ),
    ("ACCOUNT_SUSPENDED", STATUS.PERMISSION_DENIED, "This account is suspended", None, None),
    ("SCOPE_REQUIRED", STATUS.PERMISSION_DENIED, "This key does not have the scope `models`", None, None),
    ("MODEL_NOT_FOUND", STATUS.NOT_FOUND, 'Unknown model "invalidapp-999"', "model", None),
    ("SESSION_NOT_FOUND", STATUS.NOT_FOUND, 'Unknown session "x"', "chatSessionId", None),
    ("SESSION_BUSY", STATUS.ABORTED, "Session is answering another request", "chatSessionId", "1"),
    ("TURN_LOST", STATUS.ABORTED, "The turn was taken over by another worker; try again", None, "1"),
    ("IDEMPOTENCY_KEY_IN_USE", STATUS.ABORTED, "This `Idempotency-Key` is still in use", None, "1"),
    ("IDEMPOTENCY_KEY_REUSED", STATUS.FAILED_PRECONDITION, "The key came with another request", None, None),
    ("UPSTREAM_RATE_LIMITED", STATUS.RESOURCE_EXHAUSTED, "The model is receiving too many requests", None, "20"),
    ("UPSTREAM_UNAVAILABLE", STATUS.UNAVAILABLE, "The model is not available; try again later", None, "1"),
    ("STREAM_BROKEN", STATUS.UNAVAILABLE, "The model broke off before its answer was whole", None, "1"),
    ("STORE_UNAVAILABLE", STATUS.UNAVAILABLE, "The store is not available; try again later", None, "1"),
    ("SHUTTING_DOWN", STATUS.UNAVAILABLE, "The service is shutting down; try again", None, "1"),
    ("UPSTREAM_TIMEOUT", STATUS.DEADLINE_EXCEEDED, "The model did not answer in time", None, None),
    ("DEADLINE_EXCEEDED", STATUS.DEADLINE_EXCEEDED, "The deadline passed before the answer was whole", None, None),
    ("INTERNAL", STATUS.INTERNAL, "Internal Server Error", None, None),
    ("UPSTREAM_QUOTA_EXHAUSTED", STATUS.RESOURCE_EXHAUSTED, "The provider's quota is used up", None, None),
    (
        "LOCAL_RESOURCES",
        STATUS.UNAVAILABLE,
        "The service has reached a limit of its machine; try again later",
        None,
        "1",
    ),
    ("GUARD_UNAVAILABLE", STATUS.UNAVAILABLE, 'The guard "pii" of this service is not available', None, "1"),
    ("LOOP_DETECTED", STATUS.FAILED_PRECONDITION, "The request has passed through 8 Parleys", None, None),
    ("RATE_LIMITED", STATUS.RESOURCE_EXHAUSTED, "This key may make 6 requests a minute; try again", None, "7"),
    ("INVALID_TOKEN", STATUS.UNAUTHENTICATED, "The access token has expired; request a new one", None, None),
    ("INSUFFICIENT_SCOPE", STATUS.PERMISSION_DENIED, "The access token lacks the scope email", None, None),
    ("ISSUER_UNAVAILABLE", STATUS.UNAVAILABLE, "The keys of the issuer cannot be read", None, "5"),
    ("CONCURRENCY_LIMITED", STATUS.RESOURCE_EXHAUSTED, "This key may run 2 calls at once", None, "1"),
    ("QUOTA_EXHAUSTED", STATUS.RESOURCE_EXHAUSTED, "This key may spend 9 a month: 0 is left", None, "86400"),
    ("STORAGE_LIMIT_EXCEEDED", STATUS.RESOURCE_EXHAUSTED, "This account may store 2 sessions", None, None),
    ("CALL_CANCELLED", STATUS.PERMISSION_DENIED, "An administrator has cancelled the call", None, None),
    ("INVALID_ADMIN_KEY", STATUS.UNAUTHENTICATED, "Missing or invalid admin key", None, None),
    ("KEY_NOT_FOUND", STATUS.NOT_FOUND, "No key has this id", "id", None),
    ("KEY_REVOKED", STATUS.FAILED_PRECONDITION, "The key is revoked", "id", None),
    ("ACCOUNT_NOT_FOUND", STATUS.NOT_FOUND, "No account has this name", "name", None),
    ("ACCOUNT_EXISTS", STATUS.ALREADY_EXISTS, "An account has this name", "name", None),
]


def message_of(dialect: str, body: Any) -> str:
    """Returns the message of an error, and checks the format around it."""
    if dialect in {"openai", "openpipe"}:
        assert {"message", "type", "param", "code"} == body["error"].keys()
        return str(body["error"]["message"])
    if dialect != "fastapi":
        assert {"error"} == body.keys()
        return str(body["error"])
    assert {"detail"} == body.keys()
    if isinstance(body["detail"], str):
        return body["detail"]
    assert {"loc", "msg", "type"} == body["detail"][0].keys()
    return str(body["detail"][0]["msg"])


async def shown(response: aiohttp.ClientResponse) -> dict[str, Any]:
    """Returns the status, the relevant headers and the JSON of an error."""
    headers = {name: response.headers[name] for name in SHOWN if name in response.headers}
    return {"status": response.status, "headers": headers, "body": await response.json()}


def failing(
    case: tuple[str, grpc.StatusCode, str, str | None, str | None], code: str | None = None
) -> Callable[[Any, Context], Any]:
    """Returns a handler that fails as the service does; `code` is that of an upstream."""
    reason, status, message, param, wait = case

    async def fail(_request: CreateChatCompletionRequest, context: Context) -> ChatCompletion:
        metadata: list[tuple[str, str | bytes]] = [
            ("parley-error-reason", reason),
            ("parley-error-code", code or reason.lower()),
            ("grpc-status-details-bin", b"\x08\x05"),
            ("x-request-id", "the-worker-s"),
            ("x-correlation-id", "the-worker-s"),
        ]
        metadata += [("parley-error-param", param)] if param else []
        metadata += [("retry-after", wait)] if wait else []
        context.set_trailing_metadata(tuple(metadata))
        await context.abort(status, message)

    return fail


async def never(_request: CreateChatCompletionRequest, context: Context) -> AsyncIterator[HttpBody]:
    """Fails before the first event, as for an unknown model."""
    await failing(REASONS[10])(_request, context)
    yield HttpBody()
