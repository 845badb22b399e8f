"""Chooses the error that the caller of a failed call gets."""

from collections.abc import Sequence

from parley.core.errors import (
    ContextLengthExceeded,
    ParleyError,
    StreamBroken,
    UnsupportedParameter,
    UpstreamError,
    UpstreamQuotaExhausted,
    UpstreamRateLimited,
    UpstreamUnavailable,
)
from parley.core.routing.call_origin import CallOrigin
from parley.core.routing.targets import Candidate, LiveTarget


class CallError:
    """The most informative failure of a call so far, and why targets were skipped.

    Args:
        model_id: The requested model.
        candidates: All candidates of the call.
        origin: The origin of the call.

    Attributes:
        at_capacity: Whether a target had no free slot.
        skipped_unhealthy: Whether a target was skipped because it does not admit calls now.
    """

    __slots__ = ("_candidates", "_error", "_model_id", "_origin", "at_capacity", "skipped_unhealthy")

    def __init__(self, model_id: str, candidates: Sequence[Candidate], origin: CallOrigin) -> None:
        self.at_capacity = False
        self.skipped_unhealthy = False
        self._model_id = model_id
        self._candidates = candidates
        self._origin = origin
        self._error: ParleyError | None = None

    def add(self, error: ParleyError) -> None:
        """Keeps the more informative failure: a context that is too long, else the latest failure of a backend.

        Of two rate limits, the one that resets first is kept.
        """
        if isinstance(self._error, ContextLengthExceeded) or _resets_earlier(self._error, error):
            return
        if self._error is None or not isinstance(error, UnsupportedParameter):
            self._error = error

    def final(self) -> ParleyError:
        """Returns the error of the call when no candidate is left."""
        may_pass = self.at_capacity or self.skipped_unhealthy
        if self._error is not None and not (may_pass and isinstance(self._error, UnsupportedParameter)):
            return self._with_retry_hints(self._error)
        if self.at_capacity:
            return self._rate_limited(1, "every target has as many calls as it may have")
        return self._unavailable()

    def _unavailable(self) -> ParleyError:
        """Returns the error if no target admits the call, with the cause of the target that is available soonest."""
        targets = [candidate.target for candidate in self._candidates]
        healthy = [target for target in targets if target.healthy and not target.is_opened]
        soonest = min(healthy, key=self._remaining_delay, default=None)
        wait = max(1.0, self._remaining_delay(soonest)) if soonest else 1.0
        cause = soonest.breakers.cause(self._origin) if soonest else None
        if cause is UpstreamRateLimited:
            return self._rate_limited(wait, "no target was called: their rate limits are used up")
        if cause is UpstreamQuotaExhausted:
            return UpstreamQuotaExhausted(self._model_id, cause="no target was called: their quota is used up")
        message = f'The model "{self._model_id}" is not available; try again later'
        reason = "no target was called: each has failed lately, its health check fails, or it is opened"
        return UpstreamUnavailable(message, retry_after=wait, cause=reason)

    def _rate_limited(self, wait: float, cause: str) -> UpstreamRateLimited:
        message = f'The model "{self._model_id}" is receiving too many requests; try again later'
        return UpstreamRateLimited(message, retry_after=wait, cause=cause)

    def _with_retry_hints(self, error: ParleyError) -> ParleyError:
        """Raises the `retry_after` of a temporary failure to the time when a target admits calls again.

        If a target still admits calls, the failure policy has ended the retries, and another call would repeat them. A
        broken stream has had no retries, only continuations.
        """
        if isinstance(error, UpstreamError) and not isinstance(error, StreamBroken):
            error.retries_exhausted = any(one.target.admits(self._origin) for one in self._candidates)
        if isinstance(error, UpstreamRateLimited | UpstreamUnavailable):
            soonest = min(self._remaining_delay(candidate.target) for candidate in self._candidates)
            if soonest > (error.retry_after or 0.0):
                error.retry_after = soonest
        return error

    def _remaining_delay(self, target: LiveTarget) -> float:
        return target.breakers.remaining_delay(self._origin)


def _resets_earlier(one: ParleyError | None, other: ParleyError) -> bool:
    """Returns whether both are rate limits and the first one resets before the other."""
    if not (isinstance(one, UpstreamRateLimited) and isinstance(other, UpstreamRateLimited)):
        return False
    return (one.retry_after or 0.0) < (other.retry_after or 0.0)
