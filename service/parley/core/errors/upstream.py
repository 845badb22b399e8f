"""Failures of a backend."""

from parley.core.errors.base import ParleyError, cut
from parley.v1 import error_reason_pb2 as reasons

_MAX_CODE = 64


class UpstreamError(ParleyError):
    """A failure of a backend.

    `is_suspect` marks a failure that the request alone may explain, so that another request may succeed.
    `is_unreachable` marks a failure to connect, which no request can cause. Only such failures count against the target
    at once; all others count for all calls only if several accounts see them.
    """

    is_suspect = False
    is_unreachable = False
    detail: str | None = None
    """The backend's own words, without secrets. They decide how a call goes on; they are never logged."""


class UpstreamRejected(UpstreamError):
    """The backend refuses the request itself; `message`, `param` and `code` are the backend's own.

    With `is_suspect`, nothing in the backend's answer shows that the request is at fault, so the next target is tried.
    """

    reason = reasons.ERROR_REASON_UPSTREAM_REJECTED

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, cause: str | None = None
    ) -> None:
        super().__init__(message, param=param, cause=cause)
        self.is_quoted = True
        self.code = cut(code, _MAX_CODE) if code else None


class ContextLengthExceeded(UpstreamRejected):
    """The conversation does not fit the model's context; the message is the backend's own."""

    reason = reasons.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED


class ContentPolicy(UpstreamRejected):
    """The backend refuses the content; the message is its own."""

    reason = reasons.ERROR_REASON_CONTENT_POLICY


class UpstreamRateLimited(UpstreamError):
    """The backend limits the rate of requests (429)."""

    reason = reasons.ERROR_REASON_UPSTREAM_RATE_LIMITED


class UpstreamQuotaExhausted(UpstreamError):
    """The operator's key has no credit or quota left at the provider (402, 429); `code` is the provider's own."""

    reason = reasons.ERROR_REASON_UPSTREAM_QUOTA_EXHAUSTED

    def __init__(self, model: str, *, code: str | None = None, cause: str | None = None) -> None:
        message = f'The provider\'s quota for the model "{model}" is used up; use another model'
        super().__init__(message, cause=cause)
        self.code = cut(code, _MAX_CODE) if code else "insufficient_quota"


class UpstreamMisconfigured(UpstreamError):
    """The backend refuses the operator's key, or does not know the address or the model (401, 403, 404)."""

    reason = reasons.ERROR_REASON_UPSTREAM_UNAVAILABLE


class AddedParameterRejected(UpstreamMisconfigured):
    """The backend refuses, or does not support, a parameter that the caller has not sent.

    Args:
        model: The id of the model.
        name: The parameter: one of the model's `defaults`, or one that Parley adds.
        error: The backend's refusal.
    """

    def __init__(self, model: str, name: str, error: ParleyError) -> None:
        detail = error.cause or ("the backend rejects it" if error.is_quoted else error.message)
        message = f'The model "{model}" is not available; try again later'
        super().__init__(message, cause=f"{name} is refused: {detail}")


class UpstreamUnavailable(UpstreamError):
    """The backend refuses or resets connections, or fails (408, 5xx).

    `retries` counts the attempts that the HTTP client has already retried.
    """

    reason = reasons.ERROR_REASON_UPSTREAM_UNAVAILABLE
    retries = 0


class UpstreamUnreadable(UpstreamUnavailable):
    """A response without streaming is truncated or cannot be parsed. Not retried: it was generated and billed."""


class UpstreamUnrecognized(UpstreamError):
    """The backend failed with a status or body that the failure table does not list."""

    reason = reasons.ERROR_REASON_UPSTREAM_UNAVAILABLE
    is_suspect = True


class UpstreamTimeout(UpstreamError):
    """The backend sent no answer, or no first token, in time."""

    reason = reasons.ERROR_REASON_UPSTREAM_TIMEOUT


class StreamBroken(UpstreamError):
    """The backend's stream was cut, stalled or could not be parsed after its first token.

    An answer that exceeds the size that Parley accumulates raises this too: the stream ends before its end marker.
    """

    reason = reasons.ERROR_REASON_STREAM_BROKEN


class LoopDetected(UpstreamError):
    """The request has passed through too many Parleys."""

    reason = reasons.ERROR_REASON_LOOP_DETECTED

    def __init__(self, hops: int, *, cause: str | None = None) -> None:
        message = f"The request has passed through {hops} Parleys: their backends lead to one another"
        super().__init__(message, cause=cause)
