"""Converts failures of another Parley to domain errors.

Its errors carry a reason (google.rpc.ErrorInfo of the domain `parley`), which usually maps to the same error here. An
error without a reason comes from gRPC itself or from an intermediary; its status maps to the nearest reason.
"""

from dataclasses import dataclass

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from parley.backends.deadlines import Deadlines
from parley.backends.errors import classifier, local_resources, retry_delay
from parley.backends.errors.body import ErrorBody
from parley.backends.errors.classifier import Classification, ErrorFactory
from parley.backends.errors.kinds import Kind
from parley.core.errors import ParleyError, UnsupportedParameter, UpstreamError, UpstreamRejected
from parley.core.ports import UpstreamCall
from parley.v1 import error_reason_pb2 as reasons
from parley.v1.error_reason_pb2 import ErrorReason

_REASONS: dict[ErrorReason.ValueType, Classification] = {
    reasons.ERROR_REASON_INVALID_REQUEST: Classification(Kind.REJECTED, is_suspect=False),
    reasons.ERROR_REASON_UPSTREAM_REJECTED: Classification(Kind.UNCLEAR, is_suspect=True),
    reasons.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED: Classification(Kind.CONTEXT, is_suspect=False),
    reasons.ERROR_REASON_CONTENT_POLICY: Classification(Kind.POLICY, is_suspect=False),
    reasons.ERROR_REASON_MISSING_API_KEY: Classification(Kind.MISCONFIGURED, is_suspect=False),
    reasons.ERROR_REASON_INVALID_API_KEY: Classification(Kind.MISCONFIGURED, is_suspect=False),
    reasons.ERROR_REASON_PLAN_REQUIRED: Classification(Kind.MISCONFIGURED, is_suspect=False),
    reasons.ERROR_REASON_ACCOUNT_SUSPENDED: Classification(Kind.MISCONFIGURED, is_suspect=False),
    reasons.ERROR_REASON_SCOPE_REQUIRED: Classification(Kind.MISCONFIGURED, is_suspect=False),
    reasons.ERROR_REASON_INVALID_TOKEN: Classification(Kind.MISCONFIGURED, is_suspect=False),
    reasons.ERROR_REASON_INSUFFICIENT_SCOPE: Classification(Kind.MISCONFIGURED, is_suspect=False),
    reasons.ERROR_REASON_ISSUER_UNAVAILABLE: Classification(Kind.UNAVAILABLE, is_suspect=False),
    reasons.ERROR_REASON_CALL_CANCELLED: Classification(Kind.REJECTED, is_suspect=False),
    reasons.ERROR_REASON_MODEL_NOT_FOUND: Classification(Kind.MISCONFIGURED, is_suspect=False),
    reasons.ERROR_REASON_RATE_LIMITED: Classification(Kind.RATE_LIMITED, is_suspect=False),
    reasons.ERROR_REASON_CONCURRENCY_LIMITED: Classification(Kind.RATE_LIMITED, is_suspect=False),
    reasons.ERROR_REASON_QUOTA_EXHAUSTED: Classification(Kind.QUOTA, is_suspect=False),
    reasons.ERROR_REASON_STORAGE_LIMIT_EXCEEDED: Classification(Kind.QUOTA, is_suspect=False),
    reasons.ERROR_REASON_UPSTREAM_RATE_LIMITED: Classification(Kind.RATE_LIMITED, is_suspect=False),
    reasons.ERROR_REASON_UPSTREAM_QUOTA_EXHAUSTED: Classification(Kind.QUOTA, is_suspect=False),
    reasons.ERROR_REASON_UPSTREAM_TIMEOUT: Classification(Kind.TIMEOUT, is_suspect=False),
    reasons.ERROR_REASON_UPSTREAM_UNAVAILABLE: Classification(Kind.UNAVAILABLE, is_suspect=False),
    reasons.ERROR_REASON_STREAM_BROKEN: Classification(Kind.UNAVAILABLE, is_suspect=False),
    reasons.ERROR_REASON_STORE_UNAVAILABLE: Classification(Kind.UNAVAILABLE, is_suspect=False),
    reasons.ERROR_REASON_SHUTTING_DOWN: Classification(Kind.UNAVAILABLE, is_suspect=False),
    reasons.ERROR_REASON_INTERNAL: Classification(Kind.UNAVAILABLE, is_suspect=True),
    reasons.ERROR_REASON_TURN_LOST: Classification(Kind.UNAVAILABLE, is_suspect=True),
    reasons.ERROR_REASON_SESSION_BUSY: Classification(Kind.UNAVAILABLE, is_suspect=True),
    reasons.ERROR_REASON_IDEMPOTENCY_KEY_IN_USE: Classification(Kind.UNAVAILABLE, is_suspect=True),
    reasons.ERROR_REASON_SERVICE_UNAVAILABLE: Classification(Kind.UNAVAILABLE, is_suspect=False),
    reasons.ERROR_REASON_WORKER_LOST: Classification(Kind.UNAVAILABLE, is_suspect=True),
    reasons.ERROR_REASON_BAD_GATEWAY: Classification(Kind.UNAVAILABLE, is_suspect=True),
    reasons.ERROR_REASON_REQUEST_TIMEOUT: Classification(Kind.UNAVAILABLE, is_suspect=False),
    reasons.ERROR_REASON_SERVICE_TIMEOUT: Classification(Kind.TIMEOUT, is_suspect=False),
    reasons.ERROR_REASON_UNKNOWN_METHOD: Classification(Kind.MISCONFIGURED, is_suspect=False),
    reasons.ERROR_REASON_REQUEST_TOO_LARGE: Classification(Kind.UNCLEAR, is_suspect=True),
    reasons.ERROR_REASON_LOCAL_RESOURCES: Classification(Kind.UNAVAILABLE, is_suspect=True),
    reasons.ERROR_REASON_GUARD_UNAVAILABLE: Classification(Kind.UNAVAILABLE, is_suspect=True),
    reasons.ERROR_REASON_LOOP_DETECTED: Classification(Kind.LOOP, is_suspect=False),
    reasons.ERROR_REASON_HEADERS_TOO_LARGE: Classification(Kind.UNCLEAR, is_suspect=True),
}
"""Classification of each reason in protos/parley/v1/error_reason.proto."""
_MAY_TRUNCATE = frozenset({reasons.ERROR_REASON_UPSTREAM_UNAVAILABLE, reasons.ERROR_REASON_INTERNAL})
"""Inferred reasons of the statuses with which gRPC may end a partially received response."""
_UNLISTED = Classification(Kind.UNRECOGNIZED, is_suspect=True)

_NEAREST: dict[grpc.StatusCode, ErrorReason.ValueType] = {
    grpc.StatusCode.INVALID_ARGUMENT: reasons.ERROR_REASON_UPSTREAM_REJECTED,
    grpc.StatusCode.OUT_OF_RANGE: reasons.ERROR_REASON_UPSTREAM_REJECTED,
    grpc.StatusCode.FAILED_PRECONDITION: reasons.ERROR_REASON_UPSTREAM_REJECTED,
    grpc.StatusCode.UNAUTHENTICATED: reasons.ERROR_REASON_INVALID_API_KEY,
    grpc.StatusCode.PERMISSION_DENIED: reasons.ERROR_REASON_INVALID_API_KEY,
    grpc.StatusCode.NOT_FOUND: reasons.ERROR_REASON_MODEL_NOT_FOUND,
    grpc.StatusCode.UNIMPLEMENTED: reasons.ERROR_REASON_MODEL_NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED: reasons.ERROR_REASON_UPSTREAM_RATE_LIMITED,
    grpc.StatusCode.DEADLINE_EXCEEDED: reasons.ERROR_REASON_DEADLINE_EXCEEDED,
    grpc.StatusCode.UNKNOWN: reasons.ERROR_REASON_INTERNAL,
    grpc.StatusCode.INTERNAL: reasons.ERROR_REASON_INTERNAL,
    grpc.StatusCode.DATA_LOSS: reasons.ERROR_REASON_INTERNAL,
    grpc.StatusCode.UNAVAILABLE: reasons.ERROR_REASON_UPSTREAM_UNAVAILABLE,
    grpc.StatusCode.ABORTED: reasons.ERROR_REASON_UPSTREAM_UNAVAILABLE,
    grpc.StatusCode.CANCELLED: reasons.ERROR_REASON_UPSTREAM_UNAVAILABLE,
}
"""The nearest reason of each gRPC status; other statuses have none."""
# gRPC has no distinct status for these; only the details identify them.
_BAD_TLS = ("SSL_ERROR_SSL", "verification check failed")
_NOT_CONNECTED = (
    *_BAD_TLS,
    "failed to connect to",
    "connections to all backends failing",
    "errors resolving",
    "name resolution",
    "DNS",
)
_OF_THE_LIBRARY = (
    *_NOT_CONNECTED,
    "larger than max",
    "Connection reset",
    "Socket closed",
    "Stream removed",
    "RST_STREAM",
)
"""Marks of messages that gRPC itself writes; any other message may be the words of a server."""
_RESPONSE_TOO_LARGE = "CLIENT: Received message larger than max"
_REQUEST_TOO_LARGE = "SERVER: Received message larger than max"
_PREFIX = "ERROR_REASON_"
_KNOWN = frozenset(ErrorReason.keys())


class RpcErrorFactory(ErrorFactory):
    """Creates the errors of one gRPC backend; its API key is redacted from each."""

    __slots__ = ()

    def from_call(
        self, error: grpc.aio.AioRpcError, call: UpstreamCall, deadlines: Deadlines, *, started: bool = False
    ) -> ParleyError:
        """Returns the error for a failed call; `started`: the first token had arrived."""
        failed_status = _read_status(error)
        status = (
            error.code().name
            if failed_status.is_inferred
            else ErrorReason.Name(failed_status.reason).removeprefix(_PREFIX)
        )
        detail = self.redact(f"{status}: {failed_status.message}")
        cause = detail if failed_status.is_inferred and of_the_library(failed_status.message) else status
        if failed_status.is_inferred and failed_status.reason in _MAY_TRUNCATE:
            failed_status.is_truncated = bool(error.initial_metadata())
        upstream_error = self._from_failed_status(failed_status, call, deadlines, cause, started=started)
        if isinstance(upstream_error, UpstreamError):
            upstream_error.detail = detail
        return upstream_error

    def _from_failed_status(
        self, failed_status: "_FailedStatus", call: UpstreamCall, deadlines: Deadlines, cause: str, *, started: bool
    ) -> ParleyError:
        if failed_status.reason == reasons.ERROR_REASON_DEADLINE_EXCEEDED:
            return deadlines.exceeded(TimeoutError(cause), started=started)
        if started:
            return classifier.broken(call.request.model, cause)
        if failed_status.is_truncated or _RESPONSE_TOO_LARGE in failed_status.message:
            return classifier.unreadable(call.request.model, cause)
        exhausted = local_resources.find_in_text(failed_status.message) if failed_status.is_inferred else None
        if exhausted is not None:
            return exhausted
        upstream_error = self._from_status(failed_status, call, cause)
        is_unreachable = failed_status.is_inferred and any(mark in failed_status.message for mark in _NOT_CONNECTED)
        return classifier.unreachable(upstream_error) if is_unreachable else upstream_error

    def _from_status(self, failed_status: "_FailedStatus", call: UpstreamCall, cause: str) -> ParleyError:
        model = call.request.model
        if failed_status.is_inferred and any(mark in failed_status.message for mark in _BAD_TLS):
            return classifier.misconfigured(model, cause)
        if failed_status.reason == reasons.ERROR_REASON_UNSUPPORTED_PARAMETER:
            return self._unsupported(failed_status, call, cause)
        found = _REASONS.get(failed_status.reason, _UNLISTED)
        if found.kind is Kind.UNCLEAR and failed_status.param:
            found = _REASONS[reasons.ERROR_REASON_INVALID_REQUEST]
        message = self._message_for_caller(failed_status, call)
        body = ErrorBody(message=message, text=message, code=failed_status.upstream_code, param=failed_status.param)
        return self.from_classification(found, body, cause, model, failed_status.retry_after)

    def _unsupported(self, failed_status: "_FailedStatus", call: UpstreamCall, cause: str) -> ParleyError:
        message, param = self._message_for_caller(failed_status, call), self._safe_token(failed_status.param)
        if call.has_prefill and param == "continue_final_message":
            return UpstreamRejected(
                message, param=param, cause=cause
            )  # set by Parley, not by the caller: routing sends the original request
        error = UnsupportedParameter(message, param=param, cause=cause)
        error.is_quoted = True
        return error

    def _message_for_caller(self, failed_status: "_FailedStatus", call: UpstreamCall) -> str:
        """Returns the upstream's message with the caller's name for the model."""
        model = call.request.model
        return self.message_for_caller(failed_status.message.replace(f'"{call.model}"', f'"{model}"'), model)


@dataclass(slots=True)
class _FailedStatus:
    """Status and details of a failed call."""

    message: str
    """Details of the gRPC status."""
    reason: ErrorReason.ValueType
    """The reason in ErrorInfo, or the nearest reason to the status."""
    is_inferred: bool = True
    """Whether the reason was derived from the status."""
    is_truncated: bool = False
    """Whether the response ended after its metadata."""
    param: str | None = None
    """Path of the rejected field."""
    upstream_code: str | None = None
    """Error code of the other side's upstream."""
    retry_after: float | None = None
    """Seconds to wait."""


def of_the_library(message: str) -> bool:
    """Returns whether gRPC itself has written a message, so that it can be logged."""
    return any(mark in message for mark in _OF_THE_LIBRARY)


def _read_status(error: grpc.aio.AioRpcError) -> _FailedStatus:
    message = error.details() or ""
    failed_status = _FailedStatus(message, _NEAREST.get(error.code(), reasons.ERROR_REASON_UNSPECIFIED))
    if _REQUEST_TOO_LARGE in message:
        failed_status.reason = reasons.ERROR_REASON_UPSTREAM_REJECTED
    trailing = dict(error.trailing_metadata() or ())
    failed_status.retry_after = classifier.retry_after(
        {"Retry-After": str(trailing["retry-after"])} if "retry-after" in trailing else {}
    )
    _read_details(failed_status, trailing.get("grpc-status-details-bin"))
    return failed_status


def _read_details(failed_status: _FailedStatus, details: object) -> None:
    """Adds the details of a google.rpc.Status; a malformed one is ignored."""
    try:
        status = status_pb2.Status.FromString(details) if isinstance(details, bytes) else status_pb2.Status()
        for detail in status.details:
            info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
            if detail.Unpack(info) and info.domain == "parley":
                _read_info(failed_status, info)
            elif detail.Unpack(retry):
                delay = retry.retry_delay
                failed_status.retry_after = retry_delay.bounded(delay.seconds + delay.nanos / 1e9)
    except DecodeError:
        return


def _read_info(failed_status: _FailedStatus, info: error_details_pb2.ErrorInfo) -> None:
    failed_status.param = info.metadata.get("param")
    failed_status.upstream_code = info.metadata.get("upstream_code")
    name = _PREFIX + info.reason
    if name in _KNOWN:  # a newer Parley may have further reasons
        failed_status.reason = ErrorReason.Value(name)
        failed_status.is_inferred = False
