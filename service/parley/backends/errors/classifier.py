"""What went wrong at an upstream that speaks HTTP, in the terms of the domain.

The failure table (`kinds` for statuses, `known_bodies` for bodies) says what a failure is; here it becomes an
error. The caller reads Parley's own words and, where the request itself is refused, the upstream's, without secrets,
addresses and paths. All else that an upstream says goes into `cause`, for the log.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from parley.backends.errors import body as error_body
from parley.backends.errors import redaction, retry_delay
from parley.backends.errors.body import ErrorBody
from parley.backends.errors.kinds import Kind, of_status
from parley.backends.errors.known_bodies import BODIES, LAST, Row
from parley.backends.json_fidelity import FIELDS
from parley.core.errors import (
    ContentPolicy,
    ContextLengthExceeded,
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

retry_after = retry_delay.retry_after

_REFUSED = frozenset({400, 413, 422})
_CERTAIN = frozenset({Kind.REJECTED, Kind.CONTEXT, Kind.POLICY})
_CONTEXT_CODES = frozenset(code for row in BODIES if row.kind is Kind.CONTEXT for code in row.codes)
_MODEL_LACKS = frozenset({"unsupported_parameter", "unsupported_value"})

_WORD = re.compile(r"[A-Za-z0-9_.\[\]-]{1,64}")
_PATH = r"[A-Za-z_]\w*(?:\.\w+|\[\w+\])*"
# As in: Field 'n': …; Unsupported parameter: 'max_tokens'; `messages[0].content` must …; messages.0.content: …
_NAMED = re.compile(
    rf"\b(?:field|parameter|argument|param|property)s?(?: supplied)?:?\s+['\"`]({_PATH})['\"`]", re.IGNORECASE
)
_AT_FIRST = re.compile(rf"\W?({_PATH})\W?(?::|\s+(?:must|should|is|has|cannot|may)\b)")
_IN_QUOTES = re.compile(rf"['\"`]({_PATH})['\"`]")

SHAPE_ERRORS = (TypeError, AttributeError, KeyError, ValueError, RecursionError)
"""What reading JSON of an unexpected shape raises."""


class Malformed(Exception):
    """The upstream's answer is not what its API promises."""


class ErrorInBody(Exception):
    """The upstream sent an error where an answer was due; `error` is its JSON."""

    def __init__(self, error: Any) -> None:
        super().__init__("the upstream sent an error in place of an answer")
        self.error = error


class Found(NamedTuple):
    """What the table says of a failure; `row` is the row of its body, None where the status decides."""

    kind: Kind
    doubtful: bool
    row: Row | None = None


def classify(status: int, body: ErrorBody) -> Found:
    """Looks a failure up in the table."""
    codes, by_status = frozenset(body.codes), of_status(status)
    row = next((row for row in BODIES if row.fits(status, codes, body.words)), None)
    if row is not None:
        sure = row.kind is Kind.QUOTA and not row.codes.isdisjoint(codes)
        return Found(row.kind, by_status.doubtful and not sure, row)
    if status in _REFUSED:
        field = _field(body.param)
        if field == "model":
            return Found(Kind.MISCONFIGURED, by_status.doubtful)
        if field in FIELDS and codes.isdisjoint(_MODEL_LACKS):
            return Found(Kind.REJECTED, by_status.doubtful)
        last = next((row for row in LAST if field is None and row.fits(status, codes, body.words)), None)
        if last is not None:
            return Found(last.kind, by_status.doubtful, last)
    return Found(by_status.kind, by_status.doubtful)


class Failures:
    """Makes the errors of one backend. `secret` is its API key, which never appears in any of them."""

    __slots__ = ("_secret",)

    def __init__(self, secret: str | None) -> None:
        self._secret = secret

    def redact(self, text: str) -> str:
        """Strikes out our key and whatever looks like a secret, and cuts the text to a length fit for a log line."""
        return redaction.secrets(text, self._secret)

    def refusal(self, status: int, headers: Mapping[str, str], body: bytes, model: str) -> UpstreamError:
        """Returns the error for an answer with any status but 200."""
        said = error_body.parse(body)
        words = said.words or body[: redaction.LONGEST].decode(errors="replace")
        wait = retry_delay.retry_after(headers)
        wait = said.wait if wait is None else wait
        if wait is None and status == 429:  # noqa: PLR2004 - as HTTP counts
            wait = retry_delay.until_reset(headers)
        cause = f"HTTP {status}: {redaction.for_log(words, self._secret)}"
        return self.error(classify(status, said), said, cause, model, wait)

    def in_stream(self, error: Any, model: str, *, started: bool) -> UpstreamError:
        """Returns the error for one that came as an event: after the first token the answer is broken off.

        Content that is refused is so after the first token, too: it is not asked of another target.
        """
        said = error_body.read(error)
        cause = f"error event: {redaction.for_log(said.words or str(error), self._secret)}"
        failed = self.error(classify(said.status or 500, said), said, cause, model, said.wait)
        return failed if not started or isinstance(failed, ContentPolicy) else broken(model, cause)

    def unfinished(self, failure: Malformed | ErrorInBody | None, model: str, *, started: bool) -> UpstreamError:
        """Returns the error for a stream whose events do not add up to a whole answer; `failure` is its reader's."""
        if isinstance(failure, ErrorInBody):
            return self.in_stream(failure.error, model, started=started)
        return broken(model, self.redact(str(failure or "the stream ended without saying that its answer is whole")))

    def words(self, text: str, model: str) -> str:
        """Returns an upstream's words as the caller may read them; Parley's own where nothing is left."""
        text = redaction.for_caller(text, self._secret).strip()
        return text if text.strip(" ….,:;'\"") else f'The model "{model}" refused the request'

    def error(self, found: Found, said: ErrorBody, cause: str, model: str, wait: float | None) -> UpstreamError:
        """Returns the error for what was found in the table."""
        error = self._refused(found, said, cause, model) or _failed(found.kind, cause, model, wait)
        if isinstance(error, UpstreamQuotaExhausted):
            error.code = self._code(found, said) or error.code
        error.doubtful = found.kind is Kind.OVERSIZED or (found.doubtful and found.kind not in _CERTAIN)
        return error

    def _refused(self, found: Found, said: ErrorBody, cause: str, model: str) -> UpstreamError | None:
        """Returns the error for a request that is itself refused, in the upstream's words."""
        kind = found.kind
        param = self._plain(said.param) or self._plain(_named_field(said.words))
        if kind is Kind.TOO_LARGE:
            message = f'The request is too large for the model "{model}"; send shorter messages'
            return UpstreamRejected(message, param=param or "messages", code="request_too_large", cause=cause)
        made = _OF_REQUEST.get(kind)
        if made is None:
            return None
        code = self._code(found, said)
        if made is ContextLengthExceeded:
            param = self._plain(said.param) or "messages"
            code = code if code and code.lower() in _CONTEXT_CODES else None
        return made(self.words(said.message, model), param=param, code=code, cause=cause)

    def _code(self, found: Found, said: ErrorBody) -> str | None:
        """Returns the upstream's word for programs: its code, else what it was recognised by."""
        known = found.row.codes & said.codes if found.row else ()
        return self._plain(said.code) or next((code for code in sorted(known) if not code.isdecimal()), None)

    def _plain(self, word: Any) -> str | None:
        """Returns an upstream's word for programs, a field's name or a code, where it is fit for a header."""
        is_plain = isinstance(word, str) and _WORD.fullmatch(word) and self.redact(word) == word
        return word if is_plain else None


_OF_REQUEST: dict[Kind, type[UpstreamRejected]] = {
    Kind.REJECTED: UpstreamRejected,
    Kind.UNCLEAR: UpstreamRejected,
    Kind.CONTEXT: ContextLengthExceeded,
    Kind.POLICY: ContentPolicy,
}


def _failed(  # noqa: PLR0911 - a row for each kind
    kind: Kind, cause: str, model: str, wait: float | None
) -> UpstreamError:
    """Returns the error for what is not the request's fault."""
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


def _named_field(words: str) -> str | None:
    """Finds the request's field that a refusal is about, in its words."""
    named = _NAMED.search(words)
    if named:
        return named.group(1)
    first = _AT_FIRST.match(words)
    if first and _field(first.group(1)) in FIELDS:
        return first.group(1)
    quoted = (found.group(1) for found in _IN_QUOTES.finditer(words[: redaction.LONGEST]))
    return next((path for path in quoted if _field(path) in FIELDS - {"user", "model"}), None)


def rate_limited(model: str, wait: float | None, cause: str) -> UpstreamRateLimited:
    """Returns the error for an upstream that asks to slow down."""
    message = f'The model "{model}" is receiving too many requests; try again later'
    return UpstreamRateLimited(message, retry_after=wait, cause=cause)


def unavailable(model: str, cause: str, wait: float | None = None) -> UpstreamUnavailable:
    """Returns the error for an upstream that cannot be reached or has failed."""
    return UpstreamUnavailable(_not_available(model), retry_after=wait, cause=cause)


def unreadable(model: str, cause: str) -> UpstreamUnreadable:
    """Returns the error for a whole answer that broke off, or cannot be read."""
    return UpstreamUnreadable(_not_available(model), cause=cause)


def asked_again(error: ParleyError) -> ParleyError:
    """Returns the error of a call that was sent a second time already, on another connection."""
    if isinstance(error, UpstreamUnavailable):
        error.repeats = 1
    return error


def misconfigured(model: str, cause: str) -> UpstreamMisconfigured:
    """Returns the error for an address or a key that cannot be right."""
    return UpstreamMisconfigured(_not_available(model), cause=cause)


def timed_out(model: str, cause: str) -> UpstreamTimeout:
    """Returns the error for an upstream that took too long."""
    return UpstreamTimeout(f'The model "{model}" did not answer in time', cause=cause)


def broken(model: str, cause: str) -> StreamBroken:
    """Returns the error for a stream that ended before its answer was whole."""
    return StreamBroken(f'The model "{model}" broke off before its answer was whole; try again', cause=cause)


def _not_available(model: str) -> str:
    return f'The model "{model}" is not available; try again later'
