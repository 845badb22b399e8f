"""The kinds of failure that a backend's HTTP status stands for: a row for each status from 300 to 599.

What is done about a kind is in `core/routing/failure_policy`. The bodies that say more than their
status are in `known_bodies`.
"""

from enum import Enum
from typing import NamedTuple


class Kind(Enum):
    """What a failure is; the error that each becomes is made in `classifier`."""

    REJECTED = "the request is at fault"
    UNCLEAR = "refused, and nothing shows that the request is at fault"
    TOO_LARGE = "the request is larger than this server takes"
    CONTEXT = "the conversation does not fit the model's context"
    POLICY = "the content is refused"
    RATE_LIMITED = "the server asks to slow down"
    OVERSIZED = "the request alone is more than a rate limit allows"
    QUOTA = "no credit or quota is left"
    MISCONFIGURED = "the operator's key, address, model or region"
    UNAVAILABLE = "the server fails, and may answer when it is asked again"
    TIMEOUT = "the server waited too long for another"
    UNRECOGNIZED = "not listed, or the fault of the provider"


class StatusRow(NamedTuple):
    """What a status stands for where the body says no more.

    `is_suspect`: one request may have caused it, so it counts against the target only where several accounts see it.
    """

    kind: Kind
    is_suspect: bool
    source: str


_RFC = "RFC 9110, 15"
_CLOUDFLARE = "developers.cloudflare.com/support/troubleshooting/http-status-codes/cloudflare-5xx-errors"
_UNLISTED = StatusRow(Kind.UNRECOGNIZED, is_suspect=True, source="no row lists it")

STATUSES: dict[int, StatusRow] = {
    **{status: StatusRow(Kind.MISCONFIGURED, False, f"{_RFC}.4: the address is another") for status in range(300, 400)},
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
"""The statuses that are listed. Every other one from 300 to 599 is UNRECOGNIZED."""

# The words that name a status where none is given: in events of streams, and in bodies of 200.
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
    """Returns what a status stands for."""
    return STATUSES.get(status, _UNLISTED)
