"""The errors of calls.

ParleyError
├── InvalidRequestError     INVALID_ARGUMENT, OUT_OF_RANGE, FAILED_PRECONDITION: change the request
├── AuthenticationError     UNAUTHENTICATED, PERMISSION_DENIED: the key, or its plan
├── NotFoundError           NOT_FOUND: the model or the session
├── ConflictError           ABORTED: another call holds the session or the idempotency key
├── RateLimitError          RESOURCE_EXHAUSTED: a limit of the key or of the provider
├── DeadlineError           DEADLINE_EXCEEDED: the caller's deadline, or the model's
├── CancelledCallError      CANCELLED: the caller has cancelled the call
└── UnavailableError        UNAVAILABLE and every other status
    └── BrokenStreamError   a stream broke, and its continuation does not match what was delivered
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from parley_client.metadata import RateLimits, by_name, rate_limits, receipt
from parley_client.v1.receipt_pb2 import Receipt


@dataclass(frozen=True, slots=True)
class Violation:
    """A field that breaks a rule."""

    field: str
    """The path of the field, for example `messages[0].role`."""
    message: str
    """The rule."""


@dataclass(eq=False)
class ParleyError(Exception):
    """A call failed."""

    message: str
    """The message of the service or, if it was not reached, of gRPC."""
    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN
    """The status of the call."""
    reason: str | None = None
    """A name of `ErrorReason` without its prefix, for example `SESSION_BUSY`; None if it is not the service's error."""
    metadata: Mapping[str, str] | None = None
    """The metadata of `google.rpc.ErrorInfo`: `param`, `upstream_code`."""
    violations: Sequence[Violation] = ()
    """The fields that break a rule."""
    retry_delay: float | None = None
    """Seconds after which to try again; negative: do not. None where the service does not say."""
    request_id: str | None = None
    """The call's id in the service's log."""
    limits: RateLimits | None = None
    """The rate limits of the key, where the service returns them."""
    receipt: Receipt | None = None
    """The attempts of the call, if there were any."""
    partial: Any = field(default=None, repr=False)
    """For a stream: the `Completion` of what was delivered."""

    def __post_init__(self) -> None:
        super().__init__(self.message)  # so that the error can be pickled

    def __str__(self) -> str:
        return f"{self.reason or self.code.name}: {self.message}"

    @property
    def param(self) -> str | None:
        """The path of the field at fault."""
        return (self.metadata or {}).get("param")


class InvalidRequestError(ParleyError):
    """The request is invalid, or the backend rejected it."""


class AuthenticationError(ParleyError):
    """The key is missing, invalid or not allowed to make the call."""


class NotFoundError(ParleyError):
    """The model or the session does not exist."""


class ConflictError(ParleyError):
    """Another call holds the session or the idempotency key."""


class RateLimitError(ParleyError):
    """A limit is reached."""


class DeadlineError(ParleyError):
    """A deadline has passed."""


class CancelledCallError(ParleyError):
    """The caller has cancelled the call."""


class UnavailableError(ParleyError):
    """The service, its store or the model is not available, or has failed."""


class BrokenStreamError(UnavailableError):
    """A stream broke and could not be continued; `partial` has what was delivered."""

    @classmethod
    def of(cls, partial: Any) -> Self:
        """Returns the error of a repeated answer that differs from what was delivered."""
        text = "the stream broke, and the repeated answer differs from what was delivered"
        return cls(text, grpc.StatusCode.UNAVAILABLE, partial=partial)


_TYPES: dict[grpc.StatusCode, type[ParleyError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequestError,
    grpc.StatusCode.FAILED_PRECONDITION: InvalidRequestError,
    grpc.StatusCode.UNAUTHENTICATED: AuthenticationError,
    grpc.StatusCode.PERMISSION_DENIED: AuthenticationError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
    grpc.StatusCode.ABORTED: ConflictError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: RateLimitError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineError,
    grpc.StatusCode.CANCELLED: CancelledCallError,
}


def from_rpc_error(failed: Any) -> ParleyError:
    """Returns the error of a failed call of `grpc` or `grpc.aio`."""
    initial, trailing = by_name(failed.initial_metadata()), by_name(failed.trailing_metadata())
    error = _TYPES.get(failed.code(), UnavailableError)(failed.details() or failed.code().name, failed.code())
    error.limits = rate_limits(initial | trailing)
    error.receipt = receipt(trailing)
    error.request_id = trailing.get("x-request-id")
    error.retry_delay = _seconds(trailing.get("retry-after"), 1)
    for detail in _details(trailing.get("grpc-status-details-bin", b"")):
        _add(error, detail)
    pushback = trailing.get("grpc-retry-pushback-ms")
    if pushback is not None:
        # As in gRPC's retry policy (gRFC A6), a value that is not a number forbids a retry.
        error.retry_delay = _seconds(pushback, 1000, invalid=-1.0)
    return error


def _seconds(text: str | None, divisor: int, invalid: float | None = None) -> float | None:
    try:
        return None if text is None else int(text) / divisor
    except ValueError:
        return invalid
    except OverflowError:
        return math.inf


def _details(data: bytes) -> list[Any]:
    """Returns the known details of a serialized `google.rpc.Status`; of a malformed one none."""
    found: list[Any] = []
    try:
        for detail_any in status_pb2.Status.FromString(data).details:
            for kind in (error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo, error_details_pb2.BadRequest):
                detail = kind()
                if detail_any.Unpack(detail):
                    found.append(detail)
    except DecodeError:
        return []
    return found


def _add(error: ParleyError, detail: Any) -> None:
    if isinstance(detail, error_details_pb2.ErrorInfo):
        if detail.domain == "parley":
            error.reason, error.metadata = detail.reason, dict(detail.metadata)
    elif isinstance(detail, error_details_pb2.RetryInfo):
        error.retry_delay = detail.retry_delay.seconds + detail.retry_delay.nanos / 1e9
    else:
        error.violations = [Violation(one.field, one.description) for one in detail.field_violations]
