"""How long an upstream asks to wait: read from its headers, else from the words of its body. All in seconds."""

import math
import re
import time
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

MAX_DELAY = 86400.0
"""A longer wait, or one that has passed already, is taken for the nearest of 0 and a day."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = r"(\d+(?:\.\d+)?)\s*(ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hours?|d|days?)(?![a-z])"
_PARTS = re.compile(_PART, re.IGNORECASE)
_DURATION = re.compile(rf"(?:{_PART}\s*)+", re.IGNORECASE)
# OpenAI: Please try again in 1m12.5s. Azure: Please retry after 7 seconds. Gemini: Please retry in 20.04s.
_WORDS = re.compile(
    rf"(?:try again|retry|wait)\b\W{{0,3}}(?:in|after|for|at least)?:?\s*((?:{_PART}\s*)+)", re.IGNORECASE
)
# Of OpenAI and its like, of Anthropic, of draft-ietf-httpapi-ratelimit-headers.
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
    """Reads `retry-after-ms` or `Retry-After` (seconds or a date); at most a day."""
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
    """Reads when used-up limits are reset: the latest of those of which nothing is left, or is said to be left."""
    known = {name.lower(): value for name, value in headers.items()}
    waits = [
        _reset(known[reset])
        for reset, remaining in _RESETS
        if reset in known and (_number(known.get(remaining)) or 0.0) <= 0.0
    ]
    return max((wait for wait in waits if wait is not None), default=None)


def from_text(text: str) -> float | None:
    """Reads "try again in 20s" and its like."""
    found = _WORDS.search(text)
    return bounded(_duration(found.group(1))) if found else None


def from_body(fields: Mapping[str, Any]) -> float | None:
    """Reads a field such as `retry_after`, or Google's `retryDelay`, of one object of an error's JSON."""
    delay = fields.get("retryDelay")
    if isinstance(delay, str) and _DURATION.fullmatch(delay.strip()):
        return bounded(_duration(delay))
    for name, value in fields.items():
        factor = _IN_BODY.get(name.lower())
        if factor is not None and isinstance(value, int | float) and not isinstance(value, bool):
            return bounded(value * factor)
    return None


def bounded(seconds: float) -> float | None:
    """Returns the wait within 0 and a day; None for what is no number."""
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
    """Reads an HTTP date, or one of RFC 3339."""
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
