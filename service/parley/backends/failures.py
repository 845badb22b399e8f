"""What went wrong at an upstream that speaks HTTP, in the terms of the domain.

The caller reads the model's name and, where the request itself is refused, the upstream's own words. Everything else
that an upstream says goes into `cause`, for the log; our key is struck out wherever it might stand.
"""

import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from parley.core.errors import (
    ContentPolicy,
    ContextLengthExceeded,
    ParleyError,
    StreamBroken,
    UpstreamError,
    UpstreamMisconfigured,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
    UpstreamUnreadable,
)

_LONGEST = 2000  # characters of an upstream's words that are passed on
_LONGEST_WAIT = 86400.0

_OUR_FAULT = frozenset({401, 402, 403, 404, 405, 407})
_REDIRECTS = range(300, 400)
_REFUSED = frozenset({400, 413, 422})

_CONTEXT_CODES = frozenset({"context_length_exceeded", "exceed_context_size_error", "context_window_exceeded"})
_CONTEXT_WORDS = re.compile(
    r"maximum context length|context (?:length|size|window)|longer than the model's context|prompt is too long"
    r"|input token count.{0,40}exceeds|reduce the length of the (?:messages|prompt)|too large for model with"
    r"|exceed context limit",
    re.IGNORECASE,
)
_POLICY_CODES = frozenset({"content_filter", "content_policy_violation", "moderation_blocked", "safety"})

# Anthropic answers 400 to these, with the type `invalid_request_error`: nothing but the words tells them apart.
_POLICY_WORDS = re.compile(r"blocked by content filtering policy", re.IGNORECASE)
_BILLING_WORDS = re.compile(r"credit balance is too low|reached your specified .{0,20}usage limits", re.IGNORECASE)

# What the types of errors stand for that come as events, without a status (Anthropic API reference, errors).
_STATUS_OF_TYPE = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}

_WORD = re.compile(r"[A-Za-z0-9_.\[\]-]{1,64}")
_SECRETS = re.compile(r"\b(?:sk|pk|gsk|xai|key)-[\w.*-]{4,}|(?<=Bearer )\S+|(?<=://)[^/\s@]+(?=@)", re.IGNORECASE)

SHAPE_ERRORS = (TypeError, AttributeError, KeyError, ValueError, RecursionError)
"""What reading JSON of an unexpected shape raises."""


class Malformed(Exception):
    """The upstream's answer is not what its API promises."""


class ErrorInBody(Exception):
    """The upstream sent an error where an answer was due; `error` is its JSON."""

    def __init__(self, error: Any) -> None:
        super().__init__("the upstream sent an error in place of an answer")
        self.error = error


class Failures:
    """Makes the errors of one backend. `secret` is its API key, which never appears in any of them."""

    __slots__ = ("_secret",)

    def __init__(self, secret: str | None) -> None:
        self._secret = secret

    def redact(self, text: str) -> str:
        """Strikes out our key and whatever looks like one, and cuts the text to a length fit for a log line."""
        if self._secret:
            text = text.replace(self._secret, "…")
        return _SECRETS.sub("…", text)[:_LONGEST]

    def refusal(self, status: int, headers: Mapping[str, str], body: bytes, model: str) -> UpstreamError:
        """Returns the error for an answer with any status but 200."""
        said = _error_object(body)
        cause = self.redact(f"HTTP {status}: {said.get('message') or body[:_LONGEST].decode(errors='replace')}")
        return self._classify(status, said, cause, model, retry_after(headers))

    def in_stream(self, error: Any, model: str, *, started: bool) -> UpstreamError:
        """Returns the error for one that came as an event: after the first token the answer is broken off."""
        said = _flatten(error)
        cause = self.redact(f"error event: {said.get('message') or error}")
        if started:
            return broken(model, cause)
        found = [number for number in (said.get("code"), said.get("status")) if isinstance(number, int)]
        status = found[0] if found else _STATUS_OF_TYPE.get(str(said.get("type")), 500)
        return self._classify(status, said, cause, model, None)

    def unfinished(self, failure: Malformed | ErrorInBody | None, model: str, *, started: bool) -> UpstreamError:
        """Returns the error for a stream whose events do not add up to a whole answer; `failure` is its reader's."""
        if isinstance(failure, ErrorInBody):
            return self.in_stream(failure.error, model, started=started)
        return broken(model, self.redact(str(failure or "the stream ended without saying that its answer is whole")))

    def _classify(
        self, status: int, said: Mapping[str, Any], cause: str, model: str, wait: float | None
    ) -> UpstreamError:
        words = str(said.get("message") or "")
        codes = {said.get("code"), said.get("type")} & (_CONTEXT_CODES | _POLICY_CODES) if _hashable(said) else set()
        message = self.redact(words) or f'The model "{model}" refused the request'
        param = self._plain(said.get("param"))
        code = self._plain(said.get("code")) or next(iter(sorted(map(str, codes))), None)
        refused = status in _REFUSED
        if codes & _POLICY_CODES or (refused and _POLICY_WORDS.search(words)):
            return ContentPolicy(message, param=param, code=code, cause=cause)
        if codes & _CONTEXT_CODES or (refused and _CONTEXT_WORDS.search(words)):
            return ContextLengthExceeded(message, param=param or "messages", code=code, cause=cause)
        if status == 429:  # noqa: PLR2004 - as HTTP counts
            return rate_limited(model, wait, cause)
        if status in _OUR_FAULT or status in _REDIRECTS or (refused and _BILLING_WORDS.search(words)):
            return UpstreamMisconfigured(_not_available(model), cause=cause)
        if 400 <= status < 500 and status != 408:  # noqa: PLR2004 - as HTTP counts
            return UpstreamRejected(message, param=param, code=code, cause=cause)
        return unavailable(model, cause, wait)

    def _plain(self, word: Any) -> str | None:
        """Returns an upstream's word for programs, a field's name or a code, where it is fit for a header."""
        is_plain = isinstance(word, str) and _WORD.fullmatch(word) and self.redact(word) == word
        return word if is_plain else None


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


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Reads `retry-after-ms` or `Retry-After` (seconds or a date); in seconds, at most a day."""
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return _wait(milliseconds / 1000)
    text = headers.get("Retry-After")
    if text is None:
        return None
    seconds = _number(text)
    if seconds is not None:
        return _wait(seconds)
    try:
        return _wait(parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None


def _wait(seconds: float) -> float | None:
    return min(max(seconds, 0.0), _LONGEST_WAIT) if seconds == seconds else None  # noqa: PLR0124 - not a number


def _not_available(model: str) -> str:
    return f'The model "{model}" is not available; try again later'


def _error_object(body: bytes) -> dict[str, Any]:
    try:
        return _flatten(orjson.loads(body))
    except orjson.JSONDecodeError:
        text = body.decode(errors="replace").strip()
        return {} if text.startswith("<") else {"message": text}


def _flatten(data: Any) -> dict[str, Any]:
    """Finds message, type, code and param in the shapes that compatible servers use."""
    if isinstance(data, list) and data:
        data = data[0]
    if not isinstance(data, dict):
        return {"message": data} if isinstance(data, str) else {}
    error = data.get("error", data.get("detail"))
    if isinstance(error, dict):
        return error
    if isinstance(error, list):
        return {"message": "; ".join(_detail(item) for item in error)}
    return data | {"message": error} if isinstance(error, str) else data


def _detail(item: Any) -> str:
    """Puts one of FastAPI's validation errors into words."""
    if not isinstance(item, dict):
        return str(item)
    place = ".".join(str(part) for part in item.get("loc", ()) if part != "body")
    return f"{place}: {item.get('msg')}" if place else str(item.get("msg"))


def _hashable(said: Mapping[str, Any]) -> bool:
    return not any(isinstance(said.get(name), dict | list) for name in ("code", "type"))
