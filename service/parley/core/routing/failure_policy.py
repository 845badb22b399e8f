"""The failure policy: the rows of the table in docs/routing-and-failures.md."""

from dataclasses import dataclass, replace
from enum import Enum, auto

from parley.core.errors import (
    AddedParameterRejected,
    ContextLengthExceeded,
    LocalPortsExhausted,
    LoopDetected,
    ModelNotFound,
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
    """None: the failure ends the call."""
    ANY = auto()
    """The model's other targets, then its fallbacks."""
    FALLBACKS = auto()
    """Only the fallbacks: the model's other targets would fail in the same way."""


class HealthEffect(Enum):
    """How the failure counts for the health of the target."""

    FAILURE = auto()
    """The target cannot be reached."""
    SUCCESS = auto()
    """The target works: it answered, and the request is at fault."""
    NEUTRAL = auto()
    """The failure indicates nothing about the health of the target."""
    SUSPECT = auto()
    """A failure that the request may have caused: it counts for all calls if several accounts see one."""


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


_TRANSIENT = FailurePolicy(Retry.BACKOFF, NextTargets.ANY, HealthEffect.SUSPECT)
_OVERLOADED = FailurePolicy(Retry.AFTER_DELAY, NextTargets.ANY, HealthEffect.NEUTRAL)
_SUSPENDED = FailurePolicy(Retry.NO, NextTargets.ANY, HealthEffect.NEUTRAL, hold=True)
_FAILING = FailurePolicy(Retry.NO, NextTargets.ANY, HealthEffect.SUSPECT)
_TOO_LONG = FailurePolicy(Retry.NO, NextTargets.FALLBACKS, HealthEffect.SUCCESS)
_UNSUITABLE = FailurePolicy(Retry.NO, NextTargets.ANY, HealthEffect.NEUTRAL)
_REJECTED = FailurePolicy(Retry.NO, NextTargets.NONE, HealthEffect.SUCCESS)
_FINAL = FailurePolicy(Retry.NO, NextTargets.NONE, HealthEffect.NEUTRAL)


_TABLE: tuple[tuple[type[ParleyError], FailurePolicy], ...] = (  # the first matching row
    (UpstreamUnreadable, _FAILING),
    (UpstreamUnavailable, _TRANSIENT),
    (UpstreamUnrecognized, _FAILING),
    (UpstreamTimeout, _FAILING),
    (StreamBroken, _FAILING),
    (AddedParameterRejected, _UNSUITABLE),
    (UpstreamMisconfigured, _FAILING),
    (UpstreamQuotaExhausted, _FAILING),
    (UpstreamRateLimited, _TRANSIENT),
    (ContextLengthExceeded, _TOO_LONG),
    (UpstreamRejected, _REJECTED),  # content policy too
    (UnsupportedParameter, _UNSUITABLE),
    (ModelNotFound, _UNSUITABLE),  # a name of a wildcard that the target does not know
    (LoopDetected, _FINAL),
    (LocalPortsExhausted, _UNSUITABLE),  # the ports of one destination; another one has its own
    (ParleyError, _FINAL),
)


def policy_for(error: ParleyError) -> FailurePolicy:
    """Returns the policy for a failure."""
    wait = error.retry_after
    if isinstance(error, UpstreamRateLimited) and error.is_suspect:
        return _UNSUITABLE  # this request alone exceeds the limit
    if isinstance(error, UpstreamRateLimited | UpstreamUnavailable) and wait is not None and wait > MAX_INLINE_WAIT:
        return _SUSPENDED
    if isinstance(error, UpstreamRateLimited) and wait is not None:
        return _OVERLOADED
    row = next(row for kind, row in _TABLE if isinstance(error, kind))
    if isinstance(error, UpstreamError) and error.is_unreachable:
        return replace(row, health_effect=HealthEffect.FAILURE)
    if isinstance(error, UpstreamError) and error.is_suspect:
        return replace(row, next=_FAILING.next if row is _REJECTED else row.next, health_effect=HealthEffect.SUSPECT)
    return row
