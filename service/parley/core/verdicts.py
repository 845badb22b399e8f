"""What a failure means for what is done next: the table of README's "When a backend fails", row by row."""

from dataclasses import dataclass
from enum import Enum, auto

from parley.core.errors import (
    ContextLengthExceeded,
    ParleyError,
    StreamBroken,
    UnsupportedParameter,
    UpstreamMisconfigured,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamUnavailable,
    UpstreamUnreadable,
)

SHORT_WAIT = 3.0
"""Up to so many seconds a backend's `Retry-After` is waited for."""


class Repeat(Enum):
    """Whether the same target is asked again."""

    NO = auto()
    BACKOFF = auto()
    """After a pause that grows, at most twice."""
    AS_TOLD = auto()
    """When the backend said so, once."""


class Next(Enum):
    """Who may be asked then."""

    NOBODY = auto()
    TARGETS = auto()
    """The next target, then the fallbacks."""
    FALLBACKS = auto()


class Says(Enum):
    """What the failure says about the target."""

    ILL = auto()
    WELL = auto()
    NOTHING = auto()


@dataclass(frozen=True, slots=True)
class Verdict:
    """One row of the table."""

    repeat: Repeat
    next: Next
    says: Says


_MAY_PASS = Verdict(Repeat.BACKOFF, Next.TARGETS, Says.ILL)
_BUSY = Verdict(Repeat.AS_TOLD, Next.TARGETS, Says.NOTHING)
_LOST = Verdict(Repeat.NO, Next.TARGETS, Says.ILL)
_TOO_LONG = Verdict(Repeat.NO, Next.FALLBACKS, Says.WELL)
_CANNOT = Verdict(Repeat.NO, Next.TARGETS, Says.NOTHING)
_REFUSED = Verdict(Repeat.NO, Next.NOBODY, Says.WELL)
_FINAL = Verdict(Repeat.NO, Next.NOBODY, Says.NOTHING)


_TABLE: tuple[tuple[type[ParleyError], Verdict], ...] = (  # the first row that fits
    (UpstreamUnreadable, _LOST),
    (UpstreamUnavailable, _MAY_PASS),
    (UpstreamTimeout, _LOST),
    (StreamBroken, _LOST),
    (UpstreamMisconfigured, _LOST),
    (UpstreamRateLimited, _MAY_PASS),
    (ContextLengthExceeded, _TOO_LONG),
    (UpstreamRejected, _REFUSED),  # content policy too
    (UnsupportedParameter, _CANNOT),
    (ParleyError, _FINAL),
)


def verdict(error: ParleyError) -> Verdict:
    """Finds the row of a failure."""
    if isinstance(error, UpstreamRateLimited) and error.retry_after is not None and error.retry_after <= SHORT_WAIT:
        return _BUSY
    return next(row for kind, row in _TABLE if isinstance(error, kind))
