"""The failure policy: the rows of the table in docs/routing-and-failures.md."""

from dataclasses import dataclass, replace
from enum import Enum, auto

from parley.core.errors import (
    AddedParameterRejected,
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

MAX_INLINE_WAIT = 3.0
"""The longest `Retry-After` in seconds that a call waits for."""


class Retry(Enum):
    """Whether the same target is retried."""

    NO = auto()
    BACKOFF = auto()
    """With exponential backoff, at most twice."""
    AFTER_DELAY = auto()
    """Once, after the backend's `Retry-After`."""


class NextTargets(Enum):
    """Which targets may be tried next."""

    NONE = auto()
    TARGETS = auto()
    """The next target, then the fallbacks."""
    FALLBACKS = auto()


class HealthEffect(Enum):
    """How the failure counts for the health of the target."""

    FAILURE = auto()
    SUCCESS = auto()
    NEUTRAL = auto()
    SUSPECT = auto()
    """A failure that the request may have caused: it counts if several accounts see one (`suspect_failures`)."""


@dataclass(frozen=True, slots=True)
class FailurePolicy:
    """One row of the table.

    Attributes:
        retry: Whether the same target is retried.
        next: Which targets may be tried next.
        health_effect: How the failure counts for the target.
        hold: Whether no call may use the target before the end of its `Retry-After`.
    """

    retry: Retry
    next: NextTargets
    health_effect: HealthEffect
    hold: bool = False


_TRANSIENT = FailurePolicy(Retry.BACKOFF, NextTargets.TARGETS, HealthEffect.FAILURE)
_OVERLOADED = FailurePolicy(Retry.AFTER_DELAY, NextTargets.TARGETS, HealthEffect.NEUTRAL)
_SUSPENDED = FailurePolicy(Retry.NO, NextTargets.TARGETS, HealthEffect.NEUTRAL, hold=True)
_UNUSABLE = FailurePolicy(Retry.NO, NextTargets.TARGETS, HealthEffect.FAILURE)
_TOO_LONG = FailurePolicy(Retry.NO, NextTargets.FALLBACKS, HealthEffect.SUCCESS)
_UNSUPPORTED = FailurePolicy(Retry.NO, NextTargets.TARGETS, HealthEffect.NEUTRAL)
_REJECTED = FailurePolicy(Retry.NO, NextTargets.NONE, HealthEffect.SUCCESS)
_FINAL = FailurePolicy(Retry.NO, NextTargets.NONE, HealthEffect.NEUTRAL)


_TABLE: tuple[tuple[type[ParleyError], FailurePolicy], ...] = (  # the first matching row
    (UpstreamUnreadable, _UNUSABLE),
    (UpstreamUnavailable, _TRANSIENT),
    (UpstreamUnrecognized, _UNUSABLE),
    (UpstreamTimeout, _UNUSABLE),
    (StreamBroken, _UNUSABLE),
    (AddedParameterRejected, _UNSUPPORTED),
    (UpstreamMisconfigured, _UNUSABLE),
    (UpstreamQuotaExhausted, _UNUSABLE),
    (UpstreamRateLimited, _TRANSIENT),
    (ContextLengthExceeded, _TOO_LONG),
    (UpstreamRejected, _REJECTED),  # content policy too
    (UnsupportedParameter, _UNSUPPORTED),
    (ParleyError, _FINAL),
)


def policy_for(error: ParleyError) -> FailurePolicy:
    """Returns the policy for a failure."""
    wait = error.retry_after
    if isinstance(error, UpstreamRateLimited) and error.is_suspect:
        return _UNSUPPORTED  # this request alone exceeds the limit
    if isinstance(error, UpstreamRateLimited | UpstreamUnavailable) and wait is not None and wait > MAX_INLINE_WAIT:
        return _SUSPENDED
    if isinstance(error, UpstreamRateLimited) and wait is not None:
        return _OVERLOADED
    row = next(row for kind, row in _TABLE if isinstance(error, kind))
    if isinstance(error, UpstreamError) and error.is_suspect:
        return replace(row, next=_UNUSABLE.next if row is _REJECTED else row.next, health_effect=HealthEffect.SUSPECT)
    return row
