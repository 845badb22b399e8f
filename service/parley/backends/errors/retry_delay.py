"""Parses the retry delay of an upstream from its headers or its body. All values are in seconds."""

import math
import re
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

MAX_DELAY = 86400.0
"""Upper bound of a delay: one day."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = r"(\d+(?:\.\d+)?)\s*(ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hours?|d|days?)(?![a-z])"
_PARTS = re.compile(_PART, re.IGNORECASE)
_DURATION = re.compile(rf"(?:{_PART}\s*)+", re.IGNORECASE)
# OpenAI: Please try again in 1m12.5s. Azure: Please retry after 7 seconds. Gemini: Please retry in 20.04s.
_WORDS = re.compile(
    rf"(?:try again|retry|wait)\b\W{{0,3}}(?:in|after|for|at least)?:?\s*((?:{_PART}\s*)+)", re.IGNORECASE
)
# OpenAI and compatible servers, Anthropic, draft-ietf-httpapi-ratelimit-headers.
_LIMITS = ("requests", "tokens", "input-tokens", "output-tokens")
_RESETS = [
    *((f"x-ratelimit-reset-{name}", f"x-ratelimit-remaining-{name}") for name in _LIMITS),
    *((f"anthropic-ratelimit-{name}-reset", f"anthropic-ratelimit-{name}-remaining") for name in _LIMITS),
    ("x-ratelimit-reset", "x-ratelimit-remaining"),
    ("ratelimit-reset", "ratelimit-remaining"),
]
_EPOCH = 1e9  # a larger number is a Unix time
_EPOCH_MILLISECONDS = 1e12
_IN_BODY = {"retry_after_ms": 0.001, "retry_after_seconds": 1.0, "retry_after": 1.0, "retryafter": 1.0}


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Parses `retry-after-ms` or `Retry-After` (seconds or a date; RFC 9110, 10.2.3); at most MAX_DELAY."""
    known = {name.lower(): value for name, value in headers.items()}
    milliseconds = _number(known.get("retry-after-ms"))
    if milliseconds is not None:
        return bounded(milliseconds / 1000)
    text = known.get("retry-after")
    if text is None:
        return None
    seconds = _number(text)
    if seconds is None:
        seconds = _seconds_to_date(text)
    return None if seconds is None else bounded(seconds)


def until_reset(headers: Mapping[str, str]) -> float | None:
    """Parses rate-limit headers; returns the latest reset among limits whose remaining count is 0 or missing."""
    known = {name.lower(): value for name, value in headers.items()}
    waits = [
        _reset(known[reset])
        for reset, remaining in _RESETS
        if reset in known and (_number(known.get(remaining)) or 0.0) <= 0.0
    ]
    return max((wait for wait in waits if wait is not None), default=None)


def from_text(text: str) -> float | None:
    """Parses phrases such as "try again in 20s"."""
    found = _WORDS.search(text)
    return bounded(_duration(found.group(1))) if found else None


def from_body(fields: Mapping[str, Any]) -> float | None:
    """Parses a field such as `retry_after`, or Google's `retryDelay`, of one JSON object."""
    delay = fields.get("retryDelay")
    if isinstance(delay, str) and _DURATION.fullmatch(delay.strip()):
        return bounded(_duration(delay))
    for name, value in fields.items():
        factor = _IN_BODY.get(name.lower())
        if factor is not None and isinstance(value, int | float) and not isinstance(value, bool):
            return bounded(value * factor)
    return None


def bounded(seconds: float) -> float | None:
    """Returns the delay limited to the range from 0 to MAX_DELAY; None for NaN."""
    return None if math.isnan(seconds) else min(max(seconds, 0.0), MAX_DELAY)


def _reset(text: str) -> float | None:
    number = _number(text)
    if number is not None:
        if number > _EPOCH:
            number = number / (1000 if number > _EPOCH_MILLISECONDS else 1) - time.time()
        return bounded(number)
    if _DURATION.fullmatch(text.strip()):
        return bounded(_duration(text))
    seconds = _seconds_to_date(text)
    return None if seconds is None else bounded(seconds)


def _duration(text: str) -> float:
    parts = _PARTS.findall(text)
    return sum(
        float(number) * _UNITS["ms" if unit.lower().startswith("mil") else _short(unit)] for number, unit in parts
    )


def _short(unit: str) -> str:
    return unit.lower() if unit.lower() == "ms" else unit[0].lower()


def _seconds_to_date(text: str) -> float | None:
    """Parses an HTTP date or an RFC 3339 date; returns the seconds until then."""
    from email.utils import parsedate_to_datetime  # with the modules of the package, 0.6 MB

    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            return read(text).timestamp() - time.time()
        except (ValueError, OverflowError):
            continue
    return None


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None
