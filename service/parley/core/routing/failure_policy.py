"""What a failure means for what is done next: the table of README's "When a backend fails", row by row."""

from dataclasses import dataclass, replace
from enum import Enum, auto

from parley.core.errors import (
    AdditionRefused,
    ContextLengthExceeded,
    ParleyError,
    StreamBroken,
    UnsupportedParameter,
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


class Health(Enum):
    """What the failure says about the target."""

    FAILURE = auto()
    SUCCESS = auto()
    NEUTRAL = auto()
    SUSPECT = auto()
    """A failure that the request may have caused: it counts where several accounts see one (`suspect_failures`)."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One row of the table. `hold`: the target is not called before the time that it has named, by any call."""

    repeat: Repeat
    next: Next
    health: Health
    hold: bool = False


_MAY_PASS = Verdict(Repeat.BACKOFF, Next.TARGETS, Health.FAILURE)
_BUSY = Verdict(Repeat.AS_TOLD, Next.TARGETS, Health.NEUTRAL)
_HELD = Verdict(Repeat.NO, Next.TARGETS, Health.NEUTRAL, hold=True)
_LOST = Verdict(Repeat.NO, Next.TARGETS, Health.FAILURE)
_TOO_LONG = Verdict(Repeat.NO, Next.FALLBACKS, Health.SUCCESS)
_CANNOT = Verdict(Repeat.NO, Next.TARGETS, Health.NEUTRAL)
_REFUSED = Verdict(Repeat.NO, Next.NOBODY, Health.SUCCESS)
_FINAL = Verdict(Repeat.NO, Next.NOBODY, Health.NEUTRAL)


_TABLE: tuple[tuple[type[ParleyError], Verdict], ...] = (  # the first row that fits
    (UpstreamUnreadable, _LOST),
    (UpstreamUnavailable, _MAY_PASS),
    (UpstreamUnrecognized, _LOST),
    (UpstreamTimeout, _LOST),
    (StreamBroken, _LOST),
    (AdditionRefused, _CANNOT),
    (UpstreamMisconfigured, _LOST),
    (UpstreamQuotaExhausted, _LOST),
    (UpstreamRateLimited, _MAY_PASS),
    (ContextLengthExceeded, _TOO_LONG),
    (UpstreamRejected, _REFUSED),  # content policy too
    (UnsupportedParameter, _CANNOT),
    (ParleyError, _FINAL),
)


def verdict(error: ParleyError) -> Verdict:
    """Finds the row of a failure."""
    wait = error.retry_after
    if isinstance(error, UpstreamRateLimited) and error.doubtful:
        return _CANNOT  # one request alone is more than the limit allows
    if isinstance(error, UpstreamRateLimited | UpstreamUnavailable) and wait is not None and wait > SHORT_WAIT:
        return _HELD
    if isinstance(error, UpstreamRateLimited) and wait is not None:
        return _BUSY
    row = next(row for kind, row in _TABLE if isinstance(error, kind))
    if isinstance(error, UpstreamError) and error.doubtful:
        return replace(row, next=_LOST.next if row is _REFUSED else row.next, health=Health.SUSPECT)
    return row
