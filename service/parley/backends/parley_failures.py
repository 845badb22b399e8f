"""What went wrong at another Parley, in the terms of the domain.

Its failures name their reason (google.rpc.ErrorInfo of the domain `parley`), and most become here what they were there.
A failure without a reason is gRPC's own, or of some server in between; its status is read as the nearest reason.
"""

from dataclasses import dataclass

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from parley.backends import failures
from parley.backends.bounds import Bounds
from parley.backends.failures import Failures
from parley.core.errors import (
    ContentPolicy,
    ContextLengthExceeded,
    ParleyError,
    UnsupportedParameter,
    UpstreamRejected,
)
from parley.core.ports import UpstreamCall
from parley.v1 import error_reason_pb2 as reasons
from parley.v1.error_reason_pb2 import ErrorReason

_REJECTIONS: dict[ErrorReason.ValueType, type[UpstreamRejected]] = {
    reasons.ERROR_REASON_INVALID_REQUEST: UpstreamRejected,
    reasons.ERROR_REASON_UPSTREAM_REJECTED: UpstreamRejected,
    reasons.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED: ContextLengthExceeded,
    reasons.ERROR_REASON_CONTENT_POLICY: ContentPolicy,
}
_OUR_FAULT = frozenset(
    {
        reasons.ERROR_REASON_MISSING_API_KEY,
        reasons.ERROR_REASON_INVALID_API_KEY,
        reasons.ERROR_REASON_PLAN_REQUIRED,
        reasons.ERROR_REASON_MODEL_NOT_FOUND,
    }
)
_SLOW_DOWN = frozenset({reasons.ERROR_REASON_RATE_LIMITED, reasons.ERROR_REASON_UPSTREAM_RATE_LIMITED})

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
}
# gRPC has no status of its own for these; it says so in its details.
_BAD_TLS = ("SSL_ERROR_SSL", "verification check failed")
_TOO_LARGE_FOR_US = "CLIENT: Received message larger than max"
_TOO_LARGE_FOR_THEM = "SERVER: Received message larger than max"
_LONGEST_WAIT = 86400.0
_PREFIX = "ERROR_REASON_"
_KNOWN = frozenset(ErrorReason.keys())


class RpcFailures(Failures):
    """Makes the errors of one backend that is called over gRPC. The secret never appears in any of them."""

    __slots__ = ()

    def of_call(
        self, error: grpc.aio.AioRpcError, call: UpstreamCall, bounds: Bounds, *, started: bool = False
    ) -> ParleyError:
        """Returns the error for a call that ended with a status; `started` says that its first token had come."""
        said = _told(error)
        status = error.code().name if said.is_plain else ErrorReason.Name(said.reason).removeprefix(_PREFIX)
        cause = self.redact(f"{status}: {said.words}")
        if said.reason == reasons.ERROR_REASON_DEADLINE_EXCEEDED:
            return bounds.exceeded(TimeoutError(cause), started=started)
        if started:
            return failures.broken(call.request.model, cause)
        cut = said.is_plain and said.reason == reasons.ERROR_REASON_UPSTREAM_UNAVAILABLE
        if (cut and error.initial_metadata()) or _TOO_LARGE_FOR_US in said.words:
            return failures.unreadable(call.request.model, cause)
        return self._refusal(said, call, cause)

    def _refusal(self, said: "_Told", call: UpstreamCall, cause: str) -> ParleyError:
        model, reason = call.request.model, said.reason
        if reason in _OUR_FAULT or (said.is_plain and any(mark in said.words for mark in _BAD_TLS)):
            return failures.misconfigured(model, cause)
        if reason in _SLOW_DOWN:
            return failures.rate_limited(model, said.wait, cause)
        if reason == reasons.ERROR_REASON_UPSTREAM_TIMEOUT:
            return failures.timed_out(model, cause)
        return self._rejection(said, call, cause) or failures.unavailable(model, cause, said.wait)

    def _rejection(self, said: "_Told", call: UpstreamCall, cause: str) -> ParleyError | None:
        """Returns the error for a request that is itself refused, in the other side's words."""
        words, param, code = self._words(said, call), self._plain(said.param), self._plain(said.upstream_code)
        if said.reason == reasons.ERROR_REASON_UNSUPPORTED_PARAMETER:
            if call.continues and param == "continue_final_message":
                return UpstreamRejected(words, param=param, cause=cause)  # no caller's wish: routing asks from scratch
            return UnsupportedParameter(words, param=param, cause=cause)
        kind = _REJECTIONS.get(said.reason)
        return kind(words, param=param, code=code, cause=cause) if kind else None

    def _words(self, said: "_Told", call: UpstreamCall) -> str:
        """Returns the other side's words, with the name of the model that our caller knows."""
        words = self.redact(said.words).replace(f'"{call.model}"', f'"{call.request.model}"')
        return words or f'The model "{call.request.model}" refused the request'


@dataclass(slots=True)
class _Told:
    """What a failed call says. `is_plain`: it names no reason, this one is only the nearest to its status."""

    words: str
    reason: ErrorReason.ValueType
    is_plain: bool = True
    param: str | None = None
    upstream_code: str | None = None
    wait: float | None = None


def _told(error: grpc.aio.AioRpcError) -> _Told:
    words = error.details() or ""
    said = _Told(words, _NEAREST.get(error.code(), reasons.ERROR_REASON_UPSTREAM_UNAVAILABLE))
    if _TOO_LARGE_FOR_THEM in words:
        said.reason = reasons.ERROR_REASON_UPSTREAM_REJECTED
    trailing = dict(error.trailing_metadata() or ())
    said.wait = failures.retry_after({"Retry-After": str(trailing["retry-after"])} if "retry-after" in trailing else {})
    _read_details(said, trailing.get("grpc-status-details-bin"))
    return said


def _read_details(said: _Told, details: object) -> None:
    """Adds what a google.rpc.Status tells; one that cannot be read tells nothing."""
    try:
        status = status_pb2.Status.FromString(details) if isinstance(details, bytes) else status_pb2.Status()
        for detail in status.details:
            info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
            if detail.Unpack(info) and info.domain == "parley":
                _read_info(said, info)
            elif detail.Unpack(retry):
                delay = retry.retry_delay
                said.wait = min(max(delay.seconds + delay.nanos / 1e9, 0.0), _LONGEST_WAIT)
    except DecodeError:
        return


def _read_info(said: _Told, info: error_details_pb2.ErrorInfo) -> None:
    said.param = info.metadata.get("param")
    said.upstream_code = info.metadata.get("upstream_code")
    name = _PREFIX + info.reason
    if name in _KNOWN:  # a newer Parley may know more of them
        said.reason = ErrorReason.Value(name)
        said.is_plain = False
