"""What the service returns in metadata: rate limits and receipts."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import DecodeError

from parley_client.v1.receipt_pb2 import Receipt

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m(?!s))?(?:([\d.]+)(m?s))?")


@dataclass(frozen=True, slots=True)
class RateLimit:
    """One limit of the key for a minute."""

    limit: int
    """The most in a minute."""
    remaining: int
    """What is left."""
    reset: float
    """Seconds until all of it is available again."""


@dataclass(frozen=True, slots=True)
class RateLimits:
    """The limits of the key."""

    requests: RateLimit | None = None
    """Requests; None where they are not limited."""
    tokens: RateLimit | None = None
    """Tokens; None where they are not limited."""


def by_name(metadata: Any) -> dict[str, Any]:
    """Returns the metadata of a call by name; of a repeated name the last value."""
    return {name: value for name, value in metadata or ()}  # noqa: C416 - dict() fails for that of older grpc.aio


def rate_limits(metadata: Mapping[str, Any]) -> RateLimits | None:
    """Returns the limits of `x-ratelimit-*`; None without a limit."""
    found = {kind: limit for kind in ("requests", "tokens") if (limit := _rate_limit(metadata, kind))}
    return RateLimits(**found) if found else None


def receipt(metadata: Mapping[str, Any]) -> Receipt | None:
    """Returns the receipt of `parley-receipt-bin`; None without one."""
    data = metadata.get("parley-receipt-bin")
    try:
        return None if data is None else Receipt.FromString(data)
    except DecodeError:
        return None


def _rate_limit(metadata: Mapping[str, Any], kind: str) -> RateLimit | None:
    try:
        limit, remaining, reset = (metadata[f"x-ratelimit-{what}-{kind}"] for what in ("limit", "remaining", "reset"))
        return RateLimit(int(limit), int(remaining), seconds(reset))
    except (KeyError, ValueError):
        return None


def seconds(text: str) -> float:
    """Reads a duration in OpenAI's format: `20ms`, `8.64s`, `6m0s`, `1h0m0s`. Raises ValueError."""
    match = _DURATION.fullmatch(text)
    if not text or match is None:
        raise ValueError(f"{text!r} is not a duration")
    hours, minutes, rest, unit = match.groups()
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(rest or 0) / (1000 if unit == "ms" else 1)
