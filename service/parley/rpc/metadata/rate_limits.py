"""The caller's rate limits as metadata: the headers and the duration format of OpenAI's API."""

import math
from collections.abc import Iterable

from parley.core.usage.admission import RateLimitStatus

_SECOND = 1000  # milliseconds


def metadata(statuses: Iterable[RateLimitStatus]) -> tuple[tuple[str, str], ...]:
    """Returns `x-ratelimit-{limit,remaining,reset}-{requests,tokens}` for the configured limits."""
    return tuple(
        (f"x-ratelimit-{what}-{status.kind}", value)
        for status in statuses
        for what, value in (
            ("limit", str(status.limit)),
            ("remaining", str(status.remaining)),
            ("reset", duration(status.reset)),
        )
    )


def duration(seconds: float) -> str:
    """Formats seconds, rounded up to milliseconds: `0s`, `20ms`, `1s`, `8.64s`, `6m0s`, `1h0m0s`."""
    milliseconds = math.ceil(round(seconds * 1000, 6))
    if 0 < milliseconds < _SECOND:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60 * _SECOND)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / _SECOND:g}s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text
