"""What went wrong at another Parley, in the terms of the domain.

Its failures name their reason (google.rpc.ErrorInfo of the domain `parley`), and most become here what they were there.
A failure without a reason is gRPC's own, or of some server in between; its status is read as the nearest reason.
"""

from dataclasses import dataclass

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from parley.backends.deadlines import Bounds
from parley.backends.errors import classifier, retry_delay
from parley.backends.errors.body import ErrorBody
from parley.backends.errors.classifier import Failures, Found
from parley.backends.errors.kinds import Kind
from parley.core.errors import ParleyError, UnsupportedParameter, UpstreamRejected
from parley.core.ports import UpstreamCall
from parley.v1 import error_reason_pb2 as reasons
from parley.v1.error_reason_pb2 import ErrorReason

_REASONS: dict[ErrorReason.ValueType, Found] = {
    reasons.ERROR_REASON_INVALID_REQUEST: Found(Kind.REJECTED, doubtful=False),
    reasons.ERROR_REASON_UPSTREAM_REJECTED: Found(Kind.UNCLEAR, doubtful=True),
    reasons.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED: Found(Kind.CONTEXT, doubtful=False),
    reasons.ERROR_REASON_CONTENT_POLICY: Found(Kind.POLICY, doubtful=False),
    reasons.ERROR_REASON_MISSING_API_KEY: Found(Kind.MISCONFIGURED, doubtful=False),
    reasons.ERROR_REASON_INVALID_API_KEY: Found(Kind.MISCONFIGURED, doubtful=False),
    reasons.ERROR_REASON_PLAN_REQUIRED: Found(Kind.MISCONFIGURED, doubtful=False),
    reasons.ERROR_REASON_MODEL_NOT_FOUND: Found(Kind.MISCONFIGURED, doubtful=False),
    reasons.ERROR_REASON_RATE_LIMITED: Found(Kind.RATE_LIMITED, doubtful=False),
    reasons.ERROR_REASON_UPSTREAM_RATE_LIMITED: Found(Kind.RATE_LIMITED, doubtful=False),
    reasons.ERROR_REASON_UPSTREAM_QUOTA_EXHAUSTED: Found(Kind.QUOTA, doubtful=False),
    reasons.ERROR_REASON_UPSTREAM_TIMEOUT: Found(Kind.TIMEOUT, doubtful=False),
    reasons.ERROR_REASON_UPSTREAM_UNAVAILABLE: Found(Kind.UNAVAILABLE, doubtful=False),
    reasons.ERROR_REASON_STREAM_BROKEN: Found(Kind.UNAVAILABLE, doubtful=False),
    reasons.ERROR_REASON_STORE_UNAVAILABLE: Found(Kind.UNAVAILABLE, doubtful=False),
    reasons.ERROR_REASON_SHUTTING_DOWN: Found(Kind.UNAVAILABLE, doubtful=False),
    reasons.ERROR_REASON_INTERNAL: Found(Kind.UNAVAILABLE, doubtful=True),
    reasons.ERROR_REASON_TURN_LOST: Found(Kind.UNAVAILABLE, doubtful=True),
    reasons.ERROR_REASON_SESSION_BUSY: Found(Kind.UNAVAILABLE, doubtful=True),
    reasons.ERROR_REASON_IDEMPOTENCY_KEY_IN_USE: Found(Kind.UNAVAILABLE, doubtful=True),
}
"""What the other side's reasons stand for; protos/parley/v1/error_reason.proto."""
_CUT = frozenset({reasons.ERROR_REASON_UPSTREAM_UNAVAILABLE, reasons.ERROR_REASON_INTERNAL})
"""What gRPC's own statuses are read as that may end an answer in its middle."""
_UNLISTED = Found(Kind.UNRECOGNIZED, doubtful=True)

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
"""The reason that is nearest to a status of gRPC's own; what is not listed has none."""
# gRPC has no status of its own for these; it says so in its details.
_BAD_TLS = ("SSL_ERROR_SSL", "verification check failed")
_TOO_LARGE_FOR_US = "CLIENT: Received message larger than max"
_TOO_LARGE_FOR_THEM = "SERVER: Received message larger than max"
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
            return classifier.broken(call.request.model, cause)
        cut = said.is_plain and said.reason in _CUT
        if (cut and error.initial_metadata()) or _TOO_LARGE_FOR_US in said.words:
            return classifier.unreadable(call.request.model, cause)
        return self._refusal(said, call, cause)

    def _refusal(self, said: "_Told", call: UpstreamCall, cause: str) -> ParleyError:
        model = call.request.model
        if said.is_plain and any(mark in said.words for mark in _BAD_TLS):
            return classifier.misconfigured(model, cause)
        if said.reason == reasons.ERROR_REASON_UNSUPPORTED_PARAMETER:
            return self._unsupported(said, call, cause)
        found = _REASONS.get(said.reason, _UNLISTED)
        if found.kind is Kind.UNCLEAR and said.param:
            found = _REASONS[reasons.ERROR_REASON_INVALID_REQUEST]
        words = self._words(said, call)
        body = ErrorBody(message=words, words=words, code=said.upstream_code, param=said.param)
        return self.error(found, body, cause, model, said.wait)

    def _unsupported(self, said: "_Told", call: UpstreamCall, cause: str) -> ParleyError:
        words, param = self._words(said, call), self._plain(said.param)
        if call.continues and param == "continue_final_message":
            return UpstreamRejected(words, param=param, cause=cause)  # no caller's wish: routing asks from scratch
        return UnsupportedParameter(words, param=param, cause=cause)

    def _words(self, said: "_Told", call: UpstreamCall) -> str:
        """Returns the other side's words, with the name of the model that our caller knows."""
        model = call.request.model
        return self.words(said.words.replace(f'"{call.model}"', f'"{model}"'), model)


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
    said = _Told(words, _NEAREST.get(error.code(), reasons.ERROR_REASON_UNSPECIFIED))
    if _TOO_LARGE_FOR_THEM in words:
        said.reason = reasons.ERROR_REASON_UPSTREAM_REJECTED
    trailing = dict(error.trailing_metadata() or ())
    said.wait = classifier.retry_after(
        {"Retry-After": str(trailing["retry-after"])} if "retry-after" in trailing else {}
    )
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
                said.wait = retry_delay.bounded(delay.seconds + delay.nanos / 1e9)
    except DecodeError:
        return


def _read_info(said: _Told, info: error_details_pb2.ErrorInfo) -> None:
    said.param = info.metadata.get("param")
    said.upstream_code = info.metadata.get("upstream_code")
    name = _PREFIX + info.reason
    if name in _KNOWN:  # a newer Parley may know more of them
        said.reason = ErrorReason.Value(name)
        said.is_plain = False
