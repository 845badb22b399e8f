"""The catalogue of errors: how each failure appears to callers.

`make gen` writes it to edge/lua/error_catalogue.lua for the edge; the API document, the gRPC statuses and the error
events of streams read it here. The rules of a dialect that hold for all of its errors are in edge/lua/dialects.lua.
"""

from dataclasses import dataclass

from grpc import StatusCode

from parley.v1 import error_reason_pb2 as reasons
from parley.v1.error_reason_pb2 import ErrorReason

_PREFIX = "ERROR_REASON_"
INVALID_REQUEST = "invalid_request_error"
RATE_LIMIT = "rate_limit_error"
QUOTA = "insufficient_quota"
SERVER = "server_error"
OPENAI_TYPES = (INVALID_REQUEST, RATE_LIMIT, QUOTA, SERVER)


@dataclass(frozen=True, slots=True)
class ServiceError:
    """How a reason of `ErrorReason` appears to callers."""

    grpc_status: StatusCode
    """The status of the gRPC call."""
    http_status: int
    """The HTTP status at the edge; a dialect may replace it."""
    openai_type: str
    """The `type` in the openai dialects, one of `OPENAI_TYPES`."""
    openai_code: str | None = None
    """The `code` in the openai dialects, if it is not the reason in lower case."""
    should_retry: bool = False
    """Whether the same request may succeed later: the `x-should-retry` header."""
    retry_after: int | None = None
    """Seconds for `retry-after` and `RetryInfo`, if the error has no delay of its own; None to omit them."""


@dataclass(frozen=True, slots=True)
class EdgeError:
    """How a failure without a reason appears: a rejection by Envoy, or a worker's status without details."""

    message: str
    """The message, unless the edge knows a more specific one."""
    openai_type: str
    """The `type` in the openai dialects, one of `OPENAI_TYPES`."""
    code: str | None = None
    """The `code`; None for a 400 without further explanation."""
    should_retry: bool = False
    """Whether the same request may succeed later: the `x-should-retry` header."""
    retry_after: int | None = None
    """Seconds for `retry-after`; None to omit it."""
    name: str = ""
    """The key of its example in the API document; empty for a failure that documented calls do not have."""
    meaning: str = ""
    """What happened, for the API document."""
    example: str | None = None
    """The message in the API document, if the edge completes `message`."""
    reason: ErrorReason.ValueType | None = None
    """The reason for gRPC callers; None for a failure that the gRPC listener does not have."""
    grpc_status: StatusCode = StatusCode.INTERNAL
    """The status for gRPC callers; meaningful with a `reason`."""
    grpc_message: str | None = None
    """The message for gRPC callers where it is not `message`."""


def _invalid(status: int = 400, grpc_status: StatusCode = StatusCode.INVALID_ARGUMENT) -> ServiceError:
    return ServiceError(grpc_status, status, INVALID_REQUEST)


def _aborted() -> ServiceError:
    return ServiceError(StatusCode.ABORTED, 409, INVALID_REQUEST, should_retry=True, retry_after=1)


def _unavailable() -> ServiceError:
    return ServiceError(StatusCode.UNAVAILABLE, 503, SERVER, should_retry=True, retry_after=1)


def _timeout() -> ServiceError:
    return ServiceError(StatusCode.DEADLINE_EXCEEDED, 504, SERVER, should_retry=True)


def _rate_limited() -> ServiceError:
    status = StatusCode.RESOURCE_EXHAUSTED
    return ServiceError(status, 429, RATE_LIMIT, "rate_limit_exceeded", should_retry=True, retry_after=1)


SERVICE: dict[ErrorReason.ValueType, ServiceError] = {
    reasons.ERROR_REASON_INVALID_REQUEST: _invalid(),
    reasons.ERROR_REASON_MISSING_API_KEY: ServiceError(
        StatusCode.UNAUTHENTICATED, 401, INVALID_REQUEST, "invalid_api_key"
    ),
    reasons.ERROR_REASON_INVALID_API_KEY: _invalid(401, StatusCode.UNAUTHENTICATED),
    reasons.ERROR_REASON_PLAN_REQUIRED: _invalid(401, StatusCode.PERMISSION_DENIED),
    reasons.ERROR_REASON_MODEL_NOT_FOUND: _invalid(404, StatusCode.NOT_FOUND),
    reasons.ERROR_REASON_SESSION_NOT_FOUND: _invalid(404, StatusCode.NOT_FOUND),
    reasons.ERROR_REASON_SESSION_BUSY: _aborted(),
    reasons.ERROR_REASON_UNSUPPORTED_PARAMETER: _invalid(),
    reasons.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED: _invalid(),
    reasons.ERROR_REASON_CONTENT_POLICY: _invalid(),
    reasons.ERROR_REASON_UPSTREAM_REJECTED: _invalid(),
    reasons.ERROR_REASON_UPSTREAM_RATE_LIMITED: _rate_limited(),
    reasons.ERROR_REASON_UPSTREAM_UNAVAILABLE: _unavailable(),
    reasons.ERROR_REASON_UPSTREAM_TIMEOUT: _timeout(),
    reasons.ERROR_REASON_STREAM_BROKEN: _unavailable(),
    reasons.ERROR_REASON_DEADLINE_EXCEEDED: _timeout(),
    reasons.ERROR_REASON_STORE_UNAVAILABLE: _unavailable(),
    reasons.ERROR_REASON_SHUTTING_DOWN: _unavailable(),
    reasons.ERROR_REASON_INTERNAL: ServiceError(StatusCode.INTERNAL, 500, SERVER),
    reasons.ERROR_REASON_TURN_LOST: _aborted(),
    reasons.ERROR_REASON_RATE_LIMITED: _rate_limited(),
    reasons.ERROR_REASON_CONCURRENCY_LIMITED: _rate_limited(),
    # Retried only if the next day or month begins within a minute: see `pushback`, and dialects.lua.
    reasons.ERROR_REASON_QUOTA_EXHAUSTED: ServiceError(
        StatusCode.RESOURCE_EXHAUSTED, 429, QUOTA, QUOTA, should_retry=True
    ),
    reasons.ERROR_REASON_STORAGE_LIMIT_EXCEEDED: ServiceError(StatusCode.RESOURCE_EXHAUSTED, 429, QUOTA, QUOTA),
    reasons.ERROR_REASON_IDEMPOTENCY_KEY_IN_USE: _aborted(),
    reasons.ERROR_REASON_IDEMPOTENCY_KEY_REUSED: _invalid(422, StatusCode.FAILED_PRECONDITION),
    reasons.ERROR_REASON_ACCOUNT_SUSPENDED: _invalid(403, StatusCode.PERMISSION_DENIED),
    reasons.ERROR_REASON_SCOPE_REQUIRED: _invalid(403, StatusCode.PERMISSION_DENIED),
    reasons.ERROR_REASON_INVALID_TOKEN: _invalid(401, StatusCode.UNAUTHENTICATED),
    reasons.ERROR_REASON_INSUFFICIENT_SCOPE: _invalid(403, StatusCode.PERMISSION_DENIED),
    reasons.ERROR_REASON_ISSUER_UNAVAILABLE: _unavailable(),
    reasons.ERROR_REASON_KEY_NOT_FOUND: _invalid(404, StatusCode.NOT_FOUND),
    reasons.ERROR_REASON_KEY_REVOKED: _invalid(409, StatusCode.FAILED_PRECONDITION),
    reasons.ERROR_REASON_ACCOUNT_NOT_FOUND: _invalid(404, StatusCode.NOT_FOUND),
    reasons.ERROR_REASON_ACCOUNT_EXISTS: _invalid(409, StatusCode.ALREADY_EXISTS),
    reasons.ERROR_REASON_INVALID_ADMIN_KEY: _invalid(401, StatusCode.UNAUTHENTICATED),
    # Not 499, which proxies take for a caller that has disconnected.
    reasons.ERROR_REASON_CALL_CANCELLED: _invalid(403, StatusCode.PERMISSION_DENIED),
    # Not retried: the quota does not come back within minutes.
    reasons.ERROR_REASON_UPSTREAM_QUOTA_EXHAUSTED: ServiceError(StatusCode.RESOURCE_EXHAUSTED, 429, QUOTA, QUOTA),
    reasons.ERROR_REASON_LOCAL_RESOURCES: _unavailable(),
    # Not retried: each retry would pass through all of them again. RFC 5842, 7.2.
    reasons.ERROR_REASON_LOOP_DETECTED: ServiceError(StatusCode.FAILED_PRECONDITION, 508, SERVER),
    reasons.ERROR_REASON_GUARD_UNAVAILABLE: _unavailable(),
}

EDGE: dict[int, EdgeError] = {
    400: EdgeError("Bad request", INVALID_REQUEST, name="BAD_REQUEST", meaning="The request is malformed."),
    403: EdgeError(
        "Upgrades are not allowed, nor absolute https URLs",
        INVALID_REQUEST,
        "upgrade_not_allowed",
        name="UPGRADE_NOT_ALLOWED",
        meaning="The request upgrades to a WebSocket, or has an absolute https URL.",
    ),
    404: EdgeError(
        "Unknown request URL",
        INVALID_REQUEST,
        "unknown_url",
        reason=reasons.ERROR_REASON_UNKNOWN_METHOD,
        grpc_status=StatusCode.UNIMPLEMENTED,
        grpc_message="Unknown method; server reflection lists the methods of this service",
    ),
    405: EdgeError("Method not allowed", INVALID_REQUEST, "method_not_allowed"),
    408: EdgeError(
        "The request did not arrive in time; try again",
        INVALID_REQUEST,
        "request_timeout",
        should_retry=True,
        name="REQUEST_TIMEOUT",
        meaning="The request did not arrive completely within a minute.",
        reason=reasons.ERROR_REASON_REQUEST_TIMEOUT,
        grpc_status=StatusCode.DEADLINE_EXCEEDED,
    ),
    409: EdgeError("Bad request", INVALID_REQUEST, should_retry=True),
    413: EdgeError(
        "The request is too large",
        INVALID_REQUEST,
        "request_too_large",
        name="REQUEST_TOO_LARGE",
        meaning="The body exceeds the configured limit.",
        example="The request body is larger than 8 MiB",
        reason=reasons.ERROR_REASON_REQUEST_TOO_LARGE,
        grpc_status=StatusCode.RESOURCE_EXHAUSTED,
    ),
    415: EdgeError(
        "`Content-Type` must be application/json",
        INVALID_REQUEST,
        "unsupported_media_type",
        name="UNSUPPORTED_MEDIA_TYPE",
        meaning="The `Content-Type` is not JSON.",
    ),
    429: EdgeError(
        "Too many requests; try again later", RATE_LIMIT, "rate_limit_exceeded", should_retry=True, retry_after=1
    ),
    431: EdgeError(
        "The request headers are too large: 12 KiB in 100 headers are allowed",
        INVALID_REQUEST,
        "headers_too_large",
        name="HEADERS_TOO_LARGE",
        meaning="The headers are too large, or too many.",
        reason=reasons.ERROR_REASON_HEADERS_TOO_LARGE,
        grpc_status=StatusCode.RESOURCE_EXHAUSTED,
    ),
    500: EdgeError("Internal Server Error", SERVER, "internal"),
    501: EdgeError("Not implemented", SERVER, "not_implemented"),
    502: EdgeError(
        "The service did not answer properly; try again",
        SERVER,
        "bad_gateway",
        should_retry=True,
        name="BAD_GATEWAY",
        meaning="A worker's response is not valid HTTP. Try again.",
        reason=reasons.ERROR_REASON_BAD_GATEWAY,
        grpc_status=StatusCode.UNAVAILABLE,
    ),
    503: EdgeError(
        "The service is not available; try again later",
        SERVER,
        "service_unavailable",
        should_retry=True,
        retry_after=1,
        name="SERVICE_UNAVAILABLE",
        meaning="No worker is available. Try again after `retry-after`.",
        reason=reasons.ERROR_REASON_SERVICE_UNAVAILABLE,
        grpc_status=StatusCode.UNAVAILABLE,
        grpc_message="No worker is available; the call did not begin, try again",
    ),
    504: EdgeError(
        "The service did not answer in time; try again later",
        SERVER,
        "timeout",
        should_retry=True,
        name="SERVICE_TIMEOUT",
        meaning="A worker did not answer in time. Try again.",
        reason=reasons.ERROR_REASON_SERVICE_TIMEOUT,
        grpc_status=StatusCode.DEADLINE_EXCEEDED,
    ),
}

WORKER_LOST = EdgeError(
    "The worker was lost before it answered; try again, with an `Idempotency-Key` if the call must not run twice",
    SERVER,
    "worker_lost",
    should_retry=True,
    retry_after=1,
    reason=reasons.ERROR_REASON_WORKER_LOST,
    grpc_status=StatusCode.UNAVAILABLE,
)
"""A 503 after a worker has received the call."""


def reason_name(reason: ErrorReason.ValueType) -> str:
    """Returns the reason without its prefix, for example `MODEL_NOT_FOUND`."""
    return ErrorReason.Name(reason).removeprefix(_PREFIX)


OPENAI_CODES = {
    reason_name(reason).lower(): error.openai_code for reason, error in SERVICE.items() if error.openai_code
}
"""The codes that differ in the openai dialects, by the code that the service sends."""
