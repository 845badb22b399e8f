"""The gRPC status, details and trailing metadata of a failed call."""

import math
from collections.abc import Sequence
from urllib.parse import parse_qsl, quote, urlencode

import grpc
import structlog
from google.rpc import error_details_pb2, status_pb2

from parley.core.errors import (
    GuardRefused,
    GuardUnavailable,
    InvalidRequest,
    LimitExceeded,
    ParleyError,
    UpstreamQuotaExhausted,
    UpstreamRejected,
    Violation,
)
from parley.rpc.error_catalogue import SERVICE, reason_name

_MAX_VIOLATIONS_SIZE = (
    1400  # bytes of violations: with the rest they fit the 8 KiB of metadata that every client accepts
)
_MAX_PUSHBACK = 60.0  # seconds: the longest delay that OpenAI's SDKs obey, too
_PRINTABLE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
_log = structlog.get_logger()


def name(error: ParleyError) -> str:
    """Returns the reason without its prefix, for example `MODEL_NOT_FOUND`."""
    return reason_name(error.reason)


def status(error: ParleyError) -> grpc.StatusCode:
    """Returns the gRPC status of the error."""
    return SERVICE[error.reason].grpc_status


def code(error: ParleyError) -> str:
    """Returns the machine-readable code: the upstream's if it is public, else the reason in lower case."""
    own = error.code if isinstance(error, UpstreamRejected | UpstreamQuotaExhausted | GuardRefused) else None
    return own or name(error).lower()


def wait(error: ParleyError) -> float | None:
    """Returns after how many seconds to retry: the error's own delay, else that of the catalogue, if any."""
    return SERVICE[error.reason].retry_after if error.retry_after is None else error.retry_after


def pushback(error: ParleyError, remaining: float | None) -> int | None:
    """Returns the value of `grpc-retry-pushback-ms` (gRFC A6), which a gRPC library with a `retryPolicy` obeys.

    Args:
        error: The error.
        remaining: Seconds until the caller's deadline, or None.

    Returns:
        The delay before the retry in milliseconds; -1 for no retry; None to leave the delay to the library. A delay
        beyond a minute or the deadline is no retry: the library would only wait, and then hide the cause.
    """
    seconds = wait(error)
    if error.retries_exhausted or not SERVICE[error.reason].should_retry:
        return -1
    if seconds is None:
        return None
    limit = _MAX_PUSHBACK if remaining is None else min(_MAX_PUSHBACK, remaining)
    return math.ceil(seconds * 1000) if seconds <= limit else -1


def as_parley_error(error: BaseException, request_id: str) -> ParleyError:
    """Returns the error for the caller. An unexpected exception is logged here, once, and becomes `INTERNAL`."""
    if isinstance(error, ParleyError):
        return error
    _log.error("internal error", request_id=request_id, exc_info=error)
    return ParleyError("Internal Server Error", cause=repr(error))


def details(error: ParleyError) -> bytes:
    """Returns the `google.rpc.Status` with ErrorInfo, and BadRequest, QuotaFailure and RetryInfo if they apply."""
    rich = status_pb2.Status(code=status(error).value[0], message=error.message)
    rich.details.add().Pack(error_details_pb2.ErrorInfo(reason=name(error), domain="parley", metadata=_info(error)))
    if isinstance(error, InvalidRequest) and error.violations:
        bad = error_details_pb2.BadRequest()
        for field, text, kind in error.violations:
            bad.field_violations.add(field=field, description=text, reason=kind.upper())
        rich.details.add().Pack(bad)
    if isinstance(error, LimitExceeded):
        quota = error_details_pb2.QuotaFailure()
        quota.violations.add(subject=error.subject, description=error.message)
        rich.details.add().Pack(quota)
    seconds = wait(error)
    if seconds is not None and not error.retries_exhausted:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(int(seconds * 1000))
        rich.details.add().Pack(retry)
    return bytes(rich.SerializeToString())


def trailing_metadata(error: ParleyError, remaining: float | None = None) -> tuple[tuple[str, str | bytes], ...]:
    """Returns the error as metadata: the details for gRPC callers, plain entries for the edge.

    Args:
        error: The error.
        remaining: Seconds until the caller's deadline, or None.
    """
    pairs: list[tuple[str, str | bytes]] = [
        ("parley-error-reason", name(error)),
        ("parley-error-code", percent_encoded(code(error))),
    ]
    if error.param:
        pairs.append(("parley-error-param", percent_encoded(error.param)))
    if isinstance(error, InvalidRequest) and error.violations:
        pairs.append(("parley-error-violations", _encode_violations(error.violations)))
    seconds = wait(error)
    if seconds is not None:
        pairs.append(("retry-after", str(math.ceil(seconds))))
    milliseconds = pushback(error, remaining)
    if milliseconds is not None:
        pairs.append(("grpc-retry-pushback-ms", str(milliseconds)))
    pairs.append(("grpc-status-details-bin", details(error)))
    return tuple(pairs)


def percent_encoded(text: str) -> str:
    """Returns the text with all but printable ASCII percent-encoded, as in `grpc-message`."""
    return quote(text, safe=_PRINTABLE)


def _encode_violations(violations: Sequence[Violation]) -> str:
    """Returns the violations as a URL query, `field=kind:message&…`, cut to `_MAX_VIOLATIONS_SIZE` bytes."""
    pairs = [(field, f"{kind}:{text}") for field, text, kind in violations]
    while len(text := urlencode(pairs, quote_via=quote)) > _MAX_VIOLATIONS_SIZE:
        pairs.pop()
    return text


def decode_violations(text: str) -> list[Violation]:
    """Parses violations that the edge has found, in the format of `_encode_violations`."""
    pairs = ((field, *violations.partition(":")) for field, violations in parse_qsl(text, keep_blank_values=True))
    return [Violation(field, message, kind) for field, kind, _, message in pairs]


def _info(error: ParleyError) -> dict[str, str]:
    info = {"param": error.param} if error.param else {}
    if isinstance(error, UpstreamRejected | UpstreamQuotaExhausted) and error.code:
        info["upstream_code"] = error.code
    if isinstance(error, GuardRefused | GuardUnavailable):
        info |= {"guard": error.guard, "guard_reason": error.guard_reason}
    return info
