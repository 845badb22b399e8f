"""Why a call fails, in the terms of the domain.

ParleyError
├── InvalidRequest            a field is missing, of the wrong type or out of range
│   └── SessionOfOtherModel
├── UnsupportedParameter      the backend cannot honour a parameter
├── Unauthenticated           no API key
├── InvalidApiKey             an unknown, expired or revoked API key
├── PlanRequired              a key of the free plan
├── RateLimited               the key's or the account's limit a minute is used up
├── ModelNotFound             no such model for this caller
├── SessionNotFound           no such session for this caller
├── SessionBusy               another turn of the session is running
├── TurnLost                  this worker outslept its lease
├── KeyInUse                  the call with this Idempotency-Key is still running
├── KeyReused                 this Idempotency-Key came with another request
├── ReplyDeleted              the answer to this Idempotency-Key was deleted with its session
├── DeadlineExceeded          the caller's own deadline passed
├── StoreUnavailable          sessions and keys cannot be read or written
├── ShuttingDown              this worker is being stopped
└── UpstreamError             what a backend did
    ├── UpstreamRejected      the request itself
    │   ├── ContextLengthExceeded
    │   └── ContentPolicy
    ├── UpstreamRateLimited   429
    ├── UpstreamQuotaExhausted  402, 429: no credit or quota is left
    ├── UpstreamMisconfigured 401, 403, 404: our key, address or model
    │   └── AdditionRefused   a parameter that the operator or Parley has added
    ├── UpstreamUnavailable   refused, reset, 408, 5xx
    │   └── UpstreamUnreadable  a whole answer that was cut or has another shape
    ├── UpstreamUnrecognized  a status or body that the failure table does not list
    ├── UpstreamTimeout       no answer, or no token, in time
    └── StreamBroken          cut, silent or unparsable after the first token

A message is written for the caller: it names the field or the cause and says what to do. What only the operator may see
(addresses, an upstream's own words about our key) goes into `cause` and reaches the log alone.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

from parley.v1 import error_reason_pb2 as reasons

# An error travels in headers, and headers that are too long end the connection with every other call on it.
_MAX_MESSAGE = 512
_MAX_PARAM = 96
_MAX_CODE = 64
_MAX_VIOLATION = 140
_MAX_VIOLATIONS = 8


class ParleyError(Exception):
    """A failure that the caller is told about.

    `param` names the request's field at fault (`messages[0].role`); `retry_after` is in seconds; `cause` is
    for the log. A message or param that is very long is cut.
    """

    reason: reasons.ErrorReason.ValueType = reasons.ERROR_REASON_INTERNAL

    def __init__(
        self, message: str, *, param: str | None = None, retry_after: float | None = None, cause: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = _cut(message, _MAX_MESSAGE)
        self.param = _cut(param, _MAX_PARAM) if param else None
        self.retry_after = retry_after
        self.cause = cause


class Violation(NamedTuple):
    """A fault of a request.

    Attributes:
        field: The path of the field at fault, `messages[0].role`; empty where it is the whole body.
        message: What is wrong, in words.
        kind: What is wrong, for programs: pydantic's name of the error, which FastAPI's clients know.
    """

    field: str
    message: str
    kind: str = "value_error"


class InvalidRequest(ParleyError):
    """A field is missing, of the wrong type or out of range.

    `violations` has the first eight faults that were found; the first one is the error's own.
    """

    reason = reasons.ERROR_REASON_INVALID_REQUEST

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        kind: str = "value_error",
        violations: Sequence[Violation] | None = None,
    ) -> None:
        super().__init__(message, param=param)
        found = violations or ([Violation(param, message, kind)] if param else [])
        self.violations = [
            Violation(_cut(field, _MAX_PARAM), _cut(text, _MAX_VIOLATION), kind)
            for field, text, kind in found[:_MAX_VIOLATIONS]
        ]

    @classmethod
    def of(cls, violations: Sequence[Violation]) -> Self:
        """Returns the error of at least one violation."""
        first = violations[0]
        return cls(first.message, param=first.field, violations=violations)


class SessionOfOtherModel(InvalidRequest):
    """The session was made with another model than the one that the request names, or leaves to the default."""

    def __init__(self, session_id: str, model: str) -> None:
        message = f'Session "{session_id}" belongs to the model "{model}"; name that model, or begin a new session'
        super().__init__(message, param="model")


class UnsupportedParameter(ParleyError):
    """The backend that would answer cannot honour a parameter."""

    reason = reasons.ERROR_REASON_UNSUPPORTED_PARAMETER


class Unauthenticated(ParleyError):
    """The call has no `authorization`. `misplaced` is the header in which a key was sent instead."""

    reason = reasons.ERROR_REASON_MISSING_API_KEY

    def __init__(self, misplaced: str | None = None) -> None:
        hint = f"; send it as `Authorization: Bearer <key>`, not in `{misplaced}`" if misplaced else ""
        super().__init__(f"Missing API key{hint}")


class InvalidApiKey(ParleyError):
    """The API key is unknown, expired or revoked."""

    reason = reasons.ERROR_REASON_INVALID_API_KEY

    def __init__(self) -> None:
        super().__init__("Invalid API key")


class PlanRequired(ParleyError):
    """The key's account is on the free plan."""

    reason = reasons.ERROR_REASON_PLAN_REQUIRED

    def __init__(self) -> None:
        super().__init__("This API is only available on a paid plan. Visit your dashboard to upgrade.")


class RateLimited(ParleyError):
    """The key or the account has used up what it may use in a minute."""

    reason = reasons.ERROR_REASON_RATE_LIMITED

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message, retry_after=retry_after)


class ModelNotFound(ParleyError):
    """The model is not configured, or the caller's key may not use it."""

    reason = reasons.ERROR_REASON_MODEL_NOT_FOUND

    def __init__(self, model: str) -> None:
        super().__init__(f'Unknown model "{model}"', param="model")


class SessionNotFound(ParleyError):
    """The session does not exist, or belongs to another account."""

    reason = reasons.ERROR_REASON_SESSION_NOT_FOUND

    def __init__(self, session_id: str) -> None:
        super().__init__(f'Unknown session "{session_id}"', param="chatSessionId")


class SessionBusy(ParleyError):
    """Another turn of the session is running."""

    reason = reasons.ERROR_REASON_SESSION_BUSY

    def __init__(self, session_id: str) -> None:
        message = f'Session "{session_id}" is answering another request; try again when it has finished'
        super().__init__(message, param="chatSessionId", retry_after=1)


class TurnLost(ParleyError):
    """This worker outslept its lease, and another one has taken the session over."""

    reason = reasons.ERROR_REASON_TURN_LOST

    def __init__(self) -> None:
        super().__init__("The turn was taken over by another worker; try again")


class KeyInUse(ParleyError):
    """The call that came with this Idempotency-Key is still running."""

    reason = reasons.ERROR_REASON_IDEMPOTENCY_KEY_IN_USE

    def __init__(self) -> None:
        message = "The request with this `Idempotency-Key` is still running; try again when it has finished"
        super().__init__(message, retry_after=1)


class KeyReused(ParleyError):
    """This Idempotency-Key came with another request."""

    reason = reasons.ERROR_REASON_IDEMPOTENCY_KEY_REUSED

    def __init__(self) -> None:
        super().__init__("This `Idempotency-Key` came with another request; use a new key for a new request")


class ReplyDeleted(ParleyError):
    """The request with this Idempotency-Key was answered, and the answer was deleted with its session."""

    reason = reasons.ERROR_REASON_SESSION_NOT_FOUND

    def __init__(self) -> None:
        message = (
            "The session of the request with this `Idempotency-Key` has been deleted, and its answer with it; "
            "use a new key to send the request again"
        )
        super().__init__(message, param="Idempotency-Key")


class DeadlineExceeded(ParleyError):
    """The caller's own deadline passed."""

    reason = reasons.ERROR_REASON_DEADLINE_EXCEEDED

    def __init__(self) -> None:
        super().__init__("The deadline passed before the answer was whole")


class StoreUnavailable(ParleyError):
    """Sessions and keys cannot be read or written."""

    reason = reasons.ERROR_REASON_STORE_UNAVAILABLE

    def __init__(self, cause: str) -> None:
        super().__init__("The store is not available; try again later", retry_after=1, cause=cause)


class StoreMisconfigured(StoreUnavailable):
    """The store refuses its configuration: its credentials, its database, or its tables. Waiting does not help."""


class ShuttingDown(ParleyError):
    """This worker is being stopped; another one answers."""

    reason = reasons.ERROR_REASON_SHUTTING_DOWN

    def __init__(self) -> None:
        super().__init__("The service is shutting down; try again", retry_after=1)


class UpstreamError(ParleyError):
    """A failure of a backend.

    `is_suspect`: the request may have caused it, whatever its status, so that it counts against the target only where
    several accounts see it.
    """

    is_suspect = False


class UpstreamRejected(UpstreamError):
    """The backend refuses the request itself; the message, `param` and `code` are its own.

    `is_suspect`: nothing in the backend's words shows that the request is at fault, so the next target is asked.
    """

    reason = reasons.ERROR_REASON_UPSTREAM_REJECTED

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, cause: str | None = None
    ) -> None:
        super().__init__(message, param=param, cause=cause)
        self.code = _cut(code, _MAX_CODE) if code else None


class ContextLengthExceeded(UpstreamRejected):
    """The conversation does not fit the model's context; the message is the backend's own."""

    reason = reasons.ERROR_REASON_CONTEXT_LENGTH_EXCEEDED


class ContentPolicy(UpstreamRejected):
    """The backend refuses the content; the message is its own."""

    reason = reasons.ERROR_REASON_CONTENT_POLICY


class UpstreamRateLimited(UpstreamError):
    """The backend asks to slow down (429)."""

    reason = reasons.ERROR_REASON_UPSTREAM_RATE_LIMITED


class UpstreamQuotaExhausted(UpstreamError):
    """No credit or quota is left for the operator's key at the provider (402, 429). `code` is the provider's own."""

    reason = reasons.ERROR_REASON_UPSTREAM_QUOTA_EXHAUSTED

    def __init__(self, model: str, *, code: str | None = None, cause: str | None = None) -> None:
        message = f'The provider\'s quota for the model "{model}" is used up; use another model'
        super().__init__(message, cause=cause)
        self.code = _cut(code, _MAX_CODE) if code else "insufficient_quota"


class UpstreamMisconfigured(UpstreamError):
    """The backend refuses our key, or knows neither the address nor the model (401, 403, 404)."""

    reason = reasons.ERROR_REASON_UPSTREAM_UNAVAILABLE


class AddedParameterRejected(UpstreamMisconfigured):
    """The backend refuses, or cannot honour, a parameter that the caller has not sent.

    `name` is the parameter, one of the model's `defaults` or one that Parley adds; `error` is the refusal.
    """

    def __init__(self, model: str, name: str, error: ParleyError) -> None:
        detail = f"{error.message} ({error.cause})" if error.cause else error.message
        message = f'The model "{model}" is not available; try again later'
        super().__init__(message, cause=f"{name} is refused: {detail}")


class UpstreamUnavailable(UpstreamError):
    """The backend refuses or resets connections, or fails (408, 5xx).

    `retries` counts how often it has been asked again already, by whoever holds the connections to it.
    """

    reason = reasons.ERROR_REASON_UPSTREAM_UNAVAILABLE
    retries = 0


class UpstreamUnreadable(UpstreamUnavailable):
    """The backend's whole answer broke off, or cannot be read. It was made and paid for: it is not asked for again."""


class UpstreamUnrecognized(UpstreamError):
    """The backend failed with a status or body that the failure table does not list."""

    reason = reasons.ERROR_REASON_UPSTREAM_UNAVAILABLE
    is_suspect = True


class UpstreamTimeout(UpstreamError):
    """The backend gave no answer, or no first token, in time."""

    reason = reasons.ERROR_REASON_UPSTREAM_TIMEOUT


class StreamBroken(UpstreamError):
    """The backend's stream was cut, fell silent or could not be parsed after its first token."""

    reason = reasons.ERROR_REASON_STREAM_BROKEN


def _cut(text: str, size: int) -> str:
    """Returns the text, or as much of it as fits into so many bytes of UTF-8."""
    raw = text.encode(errors="replace")
    return text if len(raw) <= size else raw[: size - 3].decode(errors="ignore") + "…"
