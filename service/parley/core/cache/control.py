"""The request header `Cache-Control`, with which a caller controls the cache (RFC 9111, 5.2.1)."""

from math import inf
from typing import NamedTuple


class CacheControl(NamedTuple):
    """What a caller says about the cache.

    Attributes:
        max_age: The most seconds since an answer was kept; 0 if none may be returned.
        may_keep: Whether the answer of the call may be kept.
        directive: The directive that excludes all kept answers; empty without one.
    """

    max_age: float = inf
    may_keep: bool = True
    directive: str = ""


_DEFAULT = CacheControl()


def cache_control(header: str | None) -> CacheControl:
    """Reads the header; unknown directives are ignored, an invalid `max-age` is 0.

    `no-cache` calls the model, and its answer replaces a kept one. `no-store` calls the model and keeps nothing.
    """
    if not header:
        return _DEFAULT
    named = {
        name.strip().lower(): value.strip() for name, _, value in (one.partition("=") for one in header.split(","))
    }
    if "no-store" in named:
        return CacheControl(0.0, may_keep=False, directive="no_store")
    max_age = _seconds(named["max-age"]) if "max-age" in named else inf
    if "no-cache" in named or max_age == 0:
        return CacheControl(0.0, directive="no_cache")
    return CacheControl(max_age)


def _seconds(text: str) -> float:
    digits = text.strip('"')
    return min(float(digits), 1e9) if digits.isascii() and digits.isdigit() else 0.0
