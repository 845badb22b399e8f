"""Classifies failures of HTTP upstreams and converts them to domain errors.

The failure table classifies a failure: `kinds` by status, `known_bodies` by body. A caller receives Parley's own
message or, if the request itself was rejected, the upstream's message without secrets, addresses and paths. Other
upstream text goes to `cause`, for the log.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from parley.backends.errors import body as error_body
from parley.backends.errors import redaction, retry_delay
from parley.backends.errors.body import ErrorBody
from parley.backends.errors.kinds import Kind, of_status
from parley.backends.errors.known_bodies import BODIES, FALLBACK_ROWS, Row
from parley.backends.json_fidelity import FIELDS
from parley.core.errors import (
    ContentPolicy,
    ContextLengthExceeded,
    LoopDetected,
    ParleyError,
    StreamBroken,
    UpstreamError,
    UpstreamMisconfigured,
    UpstreamQuotaExhausted,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
    UpstreamUnreadable,
    UpstreamUnrecognized,
)
from parley.core.ports import MAX_HOPS

retry_after = retry_delay.retry_after

_MAX_CODES = 4
_REJECTION_STATUSES = frozenset({400, 413, 422})
_CERTAIN = frozenset({Kind.REJECTED, Kind.CONTEXT, Kind.POLICY})
_CONTEXT_CODES = frozenset(code for row in BODIES if row.kind is Kind.CONTEXT for code in row.codes)
_UNSUPPORTED_CODES = frozenset({"unsupported_parameter", "unsupported_value"})

_WORD = re.compile(r"[A-Za-z0-9_.\[\]-]{1,64}")
_PATH = r"[A-Za-z_]\w*(?:\.\w+|\[\w+\])*"
# As in: Field 'n': …; Unsupported parameter: 'max_tokens'; `messages[0].content` must …; messages.0.content: …
_NAMED_FIELD = re.compile(
    rf"\b(?:field|parameter|argument|param|property)s?(?: supplied)?:?\s+['\"`]({_PATH})['\"`]", re.IGNORECASE
)
_LEADING_FIELD = re.compile(rf"\W?({_PATH})\W?(?::|\s+(?:must|should|is|has|cannot|may)\b)")
_QUOTED_FIELD = re.compile(rf"['\"`]({_PATH})['\"`]")

SHAPE_ERRORS = (TypeError, AttributeError, KeyError, ValueError, RecursionError)
"""The exceptions raised when JSON has an unexpected shape."""


class MalformedResponse(Exception):
    """The upstream's response violates its API."""


class ErrorInBody(Exception):
    """The upstream sent an error in place of an answer.

    Attributes:
        error: The error as parsed JSON.
    """

    def __init__(self, error: Any) -> None:
        super().__init__("the upstream sent an error in place of an answer")
        self.error = error


class Classification(NamedTuple):
    """Result of a lookup in the failure table."""

    kind: Kind
    """What failed."""
    is_suspect: bool
    """Whether the request alone may have caused the failure; see `StatusRow`."""
    row: Row | None = None
    """The row that matched the body; None if the status decides."""


def classify(status: int, body: ErrorBody) -> Classification:
    """Looks up a failure: first by its body, then by the rejected field, last by its status."""
    codes, by_status = frozenset(body.codes), of_status(status)
    row = next((row for row in BODIES if row.matches(status, codes, body.text)), None)
    if row is not None:
        is_certain = row.kind is Kind.QUOTA and not row.codes.isdisjoint(codes)
        return Classification(row.kind, by_status.is_suspect and not is_certain, row)
    if status in _REJECTION_STATUSES:
        field = _field(body.param)
        if field == "model":
            return Classification(Kind.MISCONFIGURED, by_status.is_suspect)
        if field in FIELDS and codes.isdisjoint(_UNSUPPORTED_CODES):
            return Classification(Kind.REJECTED, by_status.is_suspect)
        last = next((row for row in FALLBACK_ROWS if field is None and row.matches(status, codes, body.text)), None)
        if last is not None:
            return Classification(last.kind, by_status.is_suspect, last)
    return Classification(by_status.kind, by_status.is_suspect)


class ErrorFactory:
    """Creates the errors of one backend.

    Args:
        secrets: The backend's keys and other secrets; redacted from every error.
    """

    __slots__ = ("_secrets",)

    def __init__(self, *secrets: str | None) -> None:
        # The longest first: one may be a part of another.
        self._secrets = sorted(filter(None, secrets), key=len, reverse=True)

    def redact(self, text: str) -> str:
        """Removes the backend's secrets and all that looks like one; truncates to `redaction.MAX_LENGTH`."""
        return redaction.secrets(text, self._secrets)

    def from_response(self, status: int, headers: Mapping[str, str], body: bytes, model: str) -> UpstreamError:
        """Returns the error for a response whose status is not 200.

        Args:
            status: HTTP status.
            headers: Response headers; `Retry-After` and its variants are read.
            body: Response body, of any content type.
            model: The caller's name for the model.
        """
        parsed = error_body.parse(body)
        message = parsed.text or body[: redaction.MAX_LENGTH].decode(errors="replace")
        wait = retry_delay.retry_after(headers)
        wait = parsed.retry_after if wait is None else wait
        if wait is None and status == 429:  # noqa: PLR2004 - an HTTP status
            wait = retry_delay.until_reset(headers)
        error = self.from_classification(classify(status, parsed), parsed, f"HTTP {status}", model, wait)
        error.detail = f"HTTP {status}: {redaction.for_log(message, self._secrets)}"
        return error

    def from_event(self, error: Any, model: str, *, started: bool) -> UpstreamError:
        """Returns the error for an error event or a body with an error.

        After the first token (`started`) this is StreamBroken, except for rejected content, which stays ContentPolicy
        so that no other target is tried.
        """
        body = error_body.read(error)
        upstream_error = self.from_classification(
            classify(body.status or 500, body), body, "error event", model, body.retry_after
        )
        if started and not isinstance(upstream_error, ContentPolicy):
            upstream_error = broken(model, upstream_error.cause or "error event")
        upstream_error.detail = f"error event: {redaction.for_log(body.text or str(error), self._secrets)}"
        return upstream_error

    def from_incomplete_stream(
        self, failure: MalformedResponse | ErrorInBody | None, model: str, *, started: bool
    ) -> UpstreamError:
        """Returns the error for a stream that ended before its answer was complete; `failure` is the parser's."""
        if isinstance(failure, ErrorInBody):
            return self.from_event(failure.error, model, started=started)
        return broken(model, self.redact(str(failure or "the stream ended without a finish reason or an end marker")))

    def message_for_caller(self, text: str, model: str) -> str:
        """Returns the upstream's message, redacted for the caller; a generic message if nothing remains."""
        text = redaction.for_caller(text, self._secrets).strip()
        return text if text.strip(" ….,:;'\"") else f'The model "{model}" refused the request'

    def from_classification(
        self, classification: Classification, body: ErrorBody, cause: str, model: str, wait: float | None
    ) -> UpstreamError:
        """Returns the error for a classification.

        Args:
            classification: Result of the table lookup.
            body: The parsed error; supplies message, code and field.
            cause: What failed, for the log, without the upstream's words: kind, code, type and field are added.
            model: The caller's name for the model.
            wait: Seconds after which the upstream accepts a retry, if known.
        """
        cause = self._describe(classification, body, cause)
        if classification.kind is Kind.LOOP:
            return LoopDetected(MAX_HOPS, cause=cause)
        error = self._rejection(classification, body, cause, model) or _failure(classification.kind, cause, model, wait)
        if isinstance(error, UpstreamQuotaExhausted):
            error.code = self._code(classification, body) or error.code
        error.is_suspect = classification.kind is Kind.OVERSIZED or (
            classification.is_suspect and classification.kind not in _CERTAIN
        )
        return error

    def _describe(self, classification: Classification, body: ErrorBody, cause: str) -> str:
        """Returns the text for the log: the upstream's words are in it only as far as they are safe tokens."""
        words = sorted({self._safe_token(word) or "" for word in (*body.codes, body.code)} - {""}, key=str)[:_MAX_CODES]
        param = self._safe_token(body.param)
        codes = f" ({', '.join(words)})" if words else ""
        return f"{cause}{codes}: {classification.kind.value}{f' (`{param}`)' if param else ''}"

    def _rejection(
        self, classification: Classification, body: ErrorBody, cause: str, model: str
    ) -> UpstreamError | None:
        """Returns the error for a rejected request, with the upstream's message; None for other failures."""
        kind = classification.kind
        param = self._safe_token(body.param) or self._safe_token(_named_field(body.text))
        if kind is Kind.TOO_LARGE:
            message = f'The request is too large for the model "{model}"; send shorter messages'
            return UpstreamRejected(message, param=param or "messages", code="request_too_large", cause=cause)
        error_class = _REJECTIONS.get(kind)
        if error_class is None:
            return None
        code = self._code(classification, body)
        if error_class is ContextLengthExceeded:
            param = self._safe_token(body.param) or "messages"
            code = code if code and code.lower() in _CONTEXT_CODES else None
        return error_class(self.message_for_caller(body.message, model), param=param, code=code, cause=cause)

    def _code(self, classification: Classification, body: ErrorBody) -> str | None:
        """Returns the upstream's error code, or else the code that the table matched."""
        known = classification.row.codes & body.codes if classification.row else ()
        return self._safe_token(body.code) or next((code for code in sorted(known) if not code.isdecimal()), None)

    def _safe_token(self, word: Any) -> str | None:
        """Returns a field name or code from the upstream if it is a safe header value, else None."""
        is_safe = isinstance(word, str) and _WORD.fullmatch(word) and self.redact(word) == word
        return word if is_safe else None


_REJECTIONS: dict[Kind, type[UpstreamRejected]] = {
    Kind.REJECTED: UpstreamRejected,
    Kind.UNCLEAR: UpstreamRejected,
    Kind.CONTEXT: ContextLengthExceeded,
    Kind.POLICY: ContentPolicy,
}


def _failure(  # noqa: PLR0911 - one case per kind
    kind: Kind, cause: str, model: str, wait: float | None
) -> UpstreamError:
    """Returns the error for a failure that the request did not cause."""
    match kind:
        case Kind.RATE_LIMITED:
            return rate_limited(model, wait, cause)
        case Kind.OVERSIZED:
            return rate_limited(model, None, cause)
        case Kind.QUOTA:
            return UpstreamQuotaExhausted(model, cause=cause)
        case Kind.MISCONFIGURED:
            return misconfigured(model, cause)
        case Kind.TIMEOUT:
            return timed_out(model, cause)
        case Kind.UNAVAILABLE:
            return unavailable(model, cause, wait)
        case _:
            return UpstreamUnrecognized(_not_available(model), cause=cause)


def _field(param: str | None) -> str | None:
    """Returns the top-level field of a path such as `messages[0].role` or `messages.0.role`."""
    return re.split(r"[.\[]", param, maxsplit=1)[0] if param else None


def _named_field(message: str) -> str | None:
    """Finds the request field that an error message names, if any."""
    named = _NAMED_FIELD.search(message)
    if named:
        return named.group(1)
    first = _LEADING_FIELD.match(message)
    if first and _field(first.group(1)) in FIELDS:
        return first.group(1)
    quoted = (match.group(1) for match in _QUOTED_FIELD.finditer(message[: redaction.MAX_LENGTH]))
    return next((path for path in quoted if _field(path) in FIELDS - {"user", "model"}), None)


def rate_limited(model: str, wait: float | None, cause: str) -> UpstreamRateLimited:
    """Returns the error for an upstream's rate limit; `wait` is in seconds."""
    message = f'The model "{model}" is receiving too many requests; try again later'
    return UpstreamRateLimited(message, retry_after=wait, cause=cause)


def shape_error(error: Exception) -> MalformedResponse:
    """Returns the failure for JSON of an unexpected shape. Errors of Python itself may quote the content."""
    is_safe = isinstance(error, orjson.JSONDecodeError) or type(error).__module__.startswith("parley.")
    return MalformedResponse(f"{type(error).__name__}: {error}" if is_safe else type(error).__name__)


def unavailable(model: str, cause: str, wait: float | None = None) -> UpstreamUnavailable:
    """Returns the error for an upstream that is unreachable or has failed; `wait` is in seconds."""
    return UpstreamUnavailable(_not_available(model), retry_after=wait, cause=cause)


def unreadable(model: str, cause: str) -> UpstreamUnreadable:
    """Returns the error for a non-streaming response that is truncated or cannot be parsed."""
    return UpstreamUnreadable(_not_available(model), cause=cause)


def without_retries(error: ParleyError) -> ParleyError:
    """Marks an error as already retried once, on another connection."""
    if isinstance(error, UpstreamUnavailable):
        error.retries = 1
    return error


def unreachable(error: ParleyError) -> ParleyError:
    """Marks an error as a failure to connect, which no request can cause."""
    if isinstance(error, UpstreamError):
        error.is_unreachable = True
    return error


def misconfigured(model: str, cause: str) -> UpstreamMisconfigured:
    """Returns the error for a wrong address, key, model or region in the configuration."""
    return UpstreamMisconfigured(_not_available(model), cause=cause)


def timed_out(model: str, cause: str) -> UpstreamTimeout:
    """Returns the error for an upstream that did not respond in time."""
    return UpstreamTimeout(f'The model "{model}" did not answer in time', cause=cause)


def broken(model: str, cause: str) -> StreamBroken:
    """Returns the error for a stream that ended before its answer was complete."""
    return StreamBroken(f'The model "{model}" broke off before its answer was whole; try again', cause=cause)


def _not_available(model: str) -> str:
    return f'The model "{model}" is not available; try again later'
