"""The first half of the failure table: the kind of failure for each HTTP status from 300 to 599.

`known_bodies` is the second half: bodies that are more specific than their status. `core/routing/failure_policy`
defines the handling of each kind.
"""

from enum import Enum
from typing import NamedTuple


class Kind(Enum):
    """Kinds of failure; `classifier` creates the error for each."""

    REJECTED = "the request is invalid"
    UNCLEAR = "rejected, without evidence that the request is invalid"
    TOO_LARGE = "the request exceeds the server's size limit"
    CONTEXT = "the conversation exceeds the model's context window"
    POLICY = "the content is rejected"
    RATE_LIMITED = "a rate limit is exceeded"
    OVERSIZED = "the request alone exceeds a rate limit"
    QUOTA = "the credit or quota is exhausted"
    MISCONFIGURED = "the operator's key, address, model or region is wrong"
    UNAVAILABLE = "the server failed; a retry may succeed"
    LOOP = "the request has passed through too many Parleys"
    TIMEOUT = "the server timed out on its own upstream"
    UNRECOGNIZED = "not listed, or a fault of the provider"


class StatusRow(NamedTuple):
    """Classification of a status if no row of `known_bodies` matches."""

    kind: Kind
    """What failed."""
    is_suspect: bool
    """Whether one request may have caused it. It then counts against the target only if several accounts see it."""
    source: str
    """Where the meaning is documented."""


_RFC = "RFC 9110, 15"
_CLOUDFLARE = "developers.cloudflare.com/support/troubleshooting/http-status-codes/cloudflare-5xx-errors"
_UNLISTED = StatusRow(Kind.UNRECOGNIZED, is_suspect=True, source="no row lists it")

STATUSES: dict[int, StatusRow] = {
    **{status: StatusRow(Kind.MISCONFIGURED, False, f"{_RFC}.4: the address has moved") for status in range(300, 400)},
    400: StatusRow(Kind.UNCLEAR, True, f"{_RFC}.5.1"),
    401: StatusRow(Kind.MISCONFIGURED, False, f"{_RFC}.5.2"),
    402: StatusRow(Kind.QUOTA, False, "api-docs.deepseek.com/quick_start/error_codes; openrouter.ai/docs/errors"),
    403: StatusRow(Kind.MISCONFIGURED, True, f"{_RFC}.5.4"),
    404: StatusRow(Kind.MISCONFIGURED, True, f"{_RFC}.5.5"),
    405: StatusRow(Kind.MISCONFIGURED, False, f"{_RFC}.5.6"),
    407: StatusRow(Kind.MISCONFIGURED, False, f"{_RFC}.5.8"),
    408: StatusRow(Kind.UNAVAILABLE, False, f"{_RFC}.5.9"),
    410: StatusRow(Kind.MISCONFIGURED, True, f"{_RFC}.5.11: a retired model"),
    412: StatusRow(Kind.MISCONFIGURED, True, "docs.fireworks.ai/guides/inference-error-codes: account suspended"),
    413: StatusRow(Kind.TOO_LARGE, True, f"{_RFC}.5.14"),
    414: StatusRow(Kind.MISCONFIGURED, True, f"{_RFC}.5.15"),
    415: StatusRow(Kind.MISCONFIGURED, True, f"{_RFC}.5.16"),
    422: StatusRow(Kind.UNCLEAR, True, f"{_RFC}.5.21"),
    426: StatusRow(Kind.MISCONFIGURED, False, f"{_RFC}.5.22"),
    429: StatusRow(Kind.RATE_LIMITED, False, "RFC 6585, 4"),
    431: StatusRow(Kind.TOO_LARGE, True, "RFC 6585, 5"),
    451: StatusRow(Kind.MISCONFIGURED, True, "RFC 7725: the region"),
    498: StatusRow(Kind.RATE_LIMITED, True, "console.groq.com/docs/errors: flex tier capacity exceeded"),
    500: StatusRow(Kind.UNAVAILABLE, True, f"{_RFC}.6.1"),
    502: StatusRow(Kind.UNAVAILABLE, False, f"{_RFC}.6.3"),
    503: StatusRow(Kind.UNAVAILABLE, False, f"{_RFC}.6.4"),
    504: StatusRow(Kind.UNAVAILABLE, False, f"{_RFC}.6.5"),
    505: StatusRow(Kind.MISCONFIGURED, False, f"{_RFC}.6.6"),
    511: StatusRow(Kind.MISCONFIGURED, False, "RFC 6585, 6"),
    **{status: StatusRow(Kind.UNAVAILABLE, False, _CLOUDFLARE) for status in (520, 521, 522, 523, 525, 526, 527, 530)},
    524: StatusRow(Kind.TIMEOUT, False, _CLOUDFLARE),
    529: StatusRow(Kind.UNAVAILABLE, False, "docs.anthropic.com/en/api/errors: overloaded_error"),
    598: StatusRow(Kind.TIMEOUT, False, "proxies: network read time-out"),
    599: StatusRow(Kind.TIMEOUT, False, "proxies: network connect time-out"),
}
"""The listed statuses. Every other status from 300 to 599 is UNRECOGNIZED."""

# Error types that imply a status if none is given: in stream events and in bodies with status 200.
STATUS_OF_WORD: dict[str, int] = {
    # docs.anthropic.com/en/api/errors
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
    # platform.openai.com/docs/guides/error-codes; vLLM and SGLang, entrypoints/openai
    "badrequesterror": 400,
    "invalid_request": 400,
    "validation_error": 422,
    "authenticationerror": 401,
    "permissiondeniederror": 403,
    "notfounderror": 404,
    "ratelimiterror": 429,
    "rate_limit_exceeded": 429,
    "too_many_requests": 429,
    "requests": 429,
    "tokens": 429,
    "server_error": 500,
    "internal_error": 500,
    "internalservererror": 500,
    "internal_server_error": 500,
    "api_error": 500,
    "service_unavailable": 503,
    "service_unavailable_error": 503,
    # openrouter.ai/docs/client-sdks/python/components/apierrortype
    "authentication": 401,
    "payment_required": 402,
    "payload_too_large": 413,
    "unprocessable": 422,
    "server": 500,
    "timeout": 504,
    "provider_unavailable": 502,
    "provider_overloaded": 503,
    # google/rpc/code.proto, by name
    "cancelled": 499,
    "invalid_argument": 400,
    "deadline_exceeded": 504,
    "not_found": 404,
    "already_exists": 409,
    "permission_denied": 403,
    "resource_exhausted": 429,
    "failed_precondition": 400,
    "aborted": 409,
    "out_of_range": 400,
    "unimplemented": 501,
    "internal": 500,
    "unavailable": 503,
    "data_loss": 500,
    "unauthenticated": 401,
    # docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html
    "validationexception": 400,
    "accessdeniedexception": 403,
    "resourcenotfoundexception": 404,
    "modeltimeoutexception": 408,
    "modelerrorexception": 424,
    "throttlingexception": 429,
    "modelnotreadyexception": 429,
    "internalserverexception": 500,
    "serviceunavailableexception": 503,
}

# google/rpc/code.proto, by number.
STATUS_OF_GRPC = dict(enumerate((200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401)))


def of_status(status: int) -> StatusRow:
    """Returns the row of a status."""
    return STATUSES.get(status, _UNLISTED)
