"""The state machine of one call: which target is tried next, how often, and when the call fails.

Nothing here waits or connects. The state records the result of each attempt and decides what comes next, by the table
in `failure_policy`.
"""

import random
from collections.abc import Callable, Sequence

import structlog

from parley.config import Retries
from parley.core.errors import (
    DeadlineExceeded,
    ParleyError,
    UnsupportedParameter,
    UpstreamMisconfigured,
    UpstreamQuotaExhausted,
    UpstreamUnavailable,
)
from parley.core.ports import CallTrace, UpstreamCall
from parley.core.routing import added_parameters, unknown_names
from parley.core.routing.attempts import Attempt, new_attempt
from parley.core.routing.breaker import Clock
from parley.core.routing.budget import RetryBudget
from parley.core.routing.call_error import CallError
from parley.core.routing.call_origin import PLAIN_ORIGIN, CallOrigin
from parley.core.routing.failure_policy import MAX_INLINE_WAIT, HealthEffect, NextTargets, Retry, policy_for
from parley.core.routing.first_token_latency import DEFAULT_SECONDS
from parley.core.routing.target_breakers import IGNORED
from parley.core.routing.targets import Candidate
from parley.core.usage.attempts import AttemptKind, AttemptOutcome

MAX_RETRIES = 2
_POLL_SECONDS = 1.0
INITIAL_BACKOFF = 0.4

_log = structlog.get_logger()


class RetryState:
    """The attempts of one call and the candidates that remain.

    Args:
        model_id: The requested model.
        candidates: The targets that may answer, in the order in which they are tried.
        retries: The model's limits of attempts.
        budget: The account's retry budget for the model, to which the call makes a deposit.
        deadline: The caller's deadline as a time of `clock`; None for no deadline.
        clock: Returns the time in seconds.
        origin: The origin of the call.
        jitter: Returns a random number from 0 to 1.

    Attributes:
        has_alternatives: Whether the call has more than one target or fallback.
        attempts: All attempts in the order of their start.
        trace: The trace of the call; None without tracing.
        is_named_by_caller: Whether the requested model is a wildcard, so that the caller has chosen the target's name.
        accepts_completion: Whether an answer without streaming may replace a stream if a target cannot stream.
    """

    __slots__ = (
        "_attempts_left",
        "_budget",
        "_call_error_or_none",
        "_candidates",
        "_clock",
        "_deadline",
        "_jitter",
        "_model_id",
        "_origin",
        "_pending",
        "_slow_candidates",
        "accepts_completion",
        "attempts",
        "has_alternatives",
        "is_named_by_caller",
        "trace",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - what the state of a call depends on
        self,
        model_id: str,
        candidates: Sequence[Candidate],
        retries: Retries,
        budget: RetryBudget,
        deadline: float | None,
        clock: Clock,
        origin: CallOrigin = PLAIN_ORIGIN,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._model_id = model_id
        self._pending = list(candidates)
        self._attempts_left = retries.attempts
        self._budget = budget
        self._deadline = deadline
        self._clock = clock
        self._origin = origin
        self._jitter = jitter
        self._slow_candidates: Sequence[Candidate] = ()  # skipped, but only because they are slow
        self._call_error_or_none: CallError | None = None  # most calls have none
        self._candidates = candidates
        self.has_alternatives = len(candidates) > 1
        self.attempts: list[Attempt] = []
        self.trace: CallTrace | None = None
        self.is_named_by_caller = self.accepts_completion = False
        budget.deposit()

    @property
    def _call_error(self) -> CallError:
        if self._call_error_or_none is None:
            self._call_error_or_none = CallError(self._model_id, self._candidates, self._origin)
        return self._call_error_or_none

    @property
    def has_remaining(self) -> bool:
        """Whether a candidate that admits the call is left."""
        return self._attempts_left > 0 and any(candidate.target.admits(self._origin) for candidate in self._pending)

    def remaining_seconds(self, limit: float) -> float:
        """Returns how many seconds the call may wait: at most `limit`, and not past the deadline."""
        return limit if self._deadline is None else max(0.0, min(limit, self._deadline - self._clock()))

    def hedge_delay(self, after: float | None) -> float:
        """Returns in how many seconds the call is hedged: `after` the start, or if that is None, when it is late."""
        waiting = self._awaiting_first_token()
        if waiting is None or waiting.non_streaming:
            return min(after or _POLL_SECONDS, _POLL_SECONDS)
        threshold = after or waiting.candidate.target.first_token_latency.late_threshold() or DEFAULT_SECONDS
        return waiting.started + threshold - self._clock()

    def try_hedge(self) -> bool:
        """Acquires a hedge. Returns False if no candidate is left or the retry budget is empty.

        A call that waits at a target whose breaker is not closed needs no budget: the hedge replaces that attempt.
        """
        waiting = self._awaiting_first_token()
        is_free = waiting is not None and not waiting.candidate.target.breakers.is_closed(self._origin)
        return self.has_remaining and (is_free or self._budget.try_withdraw())

    def _awaiting_first_token(self) -> Attempt | None:
        return next((one for one in reversed(self.attempts) if one.outcome is None), None)

    def next_candidate(self) -> Candidate:
        """Removes and returns the next candidate that admits the call.

        Raises:
            DeadlineExceeded: The deadline has passed.
            ParleyError: No candidate is left; the error is the call's final one.
        """
        if self._deadline is not None:
            self._check_deadline()
        while self._pending and self._attempts_left > 0:
            candidate = self._pending.pop(0)
            if candidate.target.admits(self._origin):
                return candidate
            self._call_error.skipped_unhealthy = True
            if candidate.target.is_only_slow(self._origin):
                self._slow_candidates = (*self._slow_candidates, candidate)
        if self._slow_candidates and self._attempts_left > 0:
            first, *self._slow_candidates = self._slow_candidates
            return first
        raise self._call_error.final()

    def start_attempt(
        self, candidate: Candidate, call: UpstreamCall, kind: AttemptKind, previous: Attempt | None = None
    ) -> Attempt | None:
        """Starts an attempt with a permit of the target's breaker.

        Args:
            candidate: The target.
            call: The request.
            kind: Why the attempt is made.
            previous: The attempt that this one retries.

        Returns:
            The attempt; None if the breaker no longer issues permits.

        Raises:
            DeadlineExceeded: The deadline has passed.
        """
        if self._deadline is not None:
            self._check_deadline()
        target = candidate.target
        permit = target.try_acquire_permit(self._origin) if self._attempts_left > 0 else None
        if permit is None and self._attempts_left > 0 and not self.has_remaining and target.is_only_slow(self._origin):
            permit = IGNORED
        if permit is None:
            return None
        self._attempts_left -= 1
        attempt = new_attempt(candidate, call, kind, self._clock(), permit)
        if previous is not None:
            attempt.retries, attempt.honored_retry_after = previous.retries, previous.honored_retry_after
            attempt.is_continuation, attempt.non_streaming = previous.is_continuation, previous.non_streaming
        self.attempts.append(attempt)
        return attempt

    def unsupported(self, error: UnsupportedParameter) -> None:
        """Records that a candidate does not support a parameter of the request."""
        self._call_error.add(error)

    def no_capacity(self) -> None:
        """Records that a candidate has no free slot."""
        self._call_error.at_capacity = True

    def first_token_received(self, attempt: Attempt) -> None:
        """Records the first token of an attempt. It closes a half-open breaker."""
        attempt.first_token = self._clock()
        target = attempt.candidate.target
        target.first_token_latency.add(attempt.first_token - attempt.started)
        if attempt.is_late:
            target.breakers.clear_late(self._origin, attempt.permit)
        attempt.permit = target.breakers.record_first_token(self._origin, attempt.permit)

    def first_token_threshold(self, attempt: Attempt) -> float | None:
        """Returns after how many seconds without a first token an attempt is late; None for never.

        Without enough samples of the target this is a quarter of the `first_token` timeout. A call without alternatives
        is never late.
        """
        if not self.has_alternatives or attempt.non_streaming:
            return None
        threshold = attempt.candidate.target.first_token_latency.late_threshold()
        return threshold or attempt.candidate.model.timeouts.first_token / 4

    def first_token_late(self, attempt: Attempt) -> None:
        """Records that the first token of an attempt is late, if another target admits the call."""
        target = attempt.candidate.target
        others = (one.target for one in self._candidates if one.target is not target)
        if attempt.outcome is None and any(other.admits(self._origin) for other in others):
            attempt.is_late = True
            target.breakers.record_late(self._origin, attempt.permit)

    def completed(self, attempt: Attempt) -> None:
        """Records that an attempt has completed."""
        attempt.ended = self._clock()
        attempt.outcome = AttemptOutcome.COMPLETED
        attempt.candidate.target.breakers.record_success(self._origin, attempt.permit)

    def cancelled(self, attempt: Attempt) -> None:
        """Records that an attempt was cancelled, unless it has ended. Its target may be tried again, last."""
        if attempt.outcome is None:
            self._finish(attempt, AttemptOutcome.CANCELLED)
            attempt.candidate.target.breakers.release(self._origin, attempt.permit)
            self._pending.append(attempt.candidate)

    def prefix_mismatched(self, attempt: Attempt) -> None:
        """Records an answer that does not begin with the delivered text. Its target is not tried again."""
        self._finish(attempt, AttemptOutcome.PREFIX_MISMATCH)
        attempt.candidate.target.breakers.release(self._origin, attempt.permit)

    def mode_rejected(self, attempt: Attempt, error: ParleyError) -> None:
        """Records that a target rejects a prefill or streaming. This counts as a success of the target."""
        self._finish(attempt, AttemptOutcome.FAILED, error)
        self._record_health(attempt, HealthEffect.SUCCESS, error)

    def failed(self, attempt: Attempt, error: ParleyError) -> float | None:
        """Records the failure of an attempt.

        Returns:
            After how many seconds to retry the same target; None to try the next one.

        Raises:
            ParleyError: `error`, or what the caller sees in its place, if no other target would answer better.
        """
        was_sent = not isinstance(error, UnsupportedParameter)
        error = added_parameters.as_misconfigured(attempt.call, error)
        if self.is_named_by_caller and (rest := attempt.candidate.model.rest) and self._model_id.endswith(rest):
            error = unknown_names.as_not_found(self._model_id, error)
        policy = policy_for(error)
        self._finish(attempt, AttemptOutcome.FAILED, error)
        self._record_health(attempt, policy.health_effect, error)
        if policy.hold and error.retry_after is not None:
            attempt.candidate.target.breakers.hold(self._origin, error.retry_after, type(error))
        if policy.next is NextTargets.NONE:
            raise error
        self._call_error.add(error)
        if policy.next is NextTargets.FALLBACKS:
            self._pending = [other for other in self._pending if other.model is not attempt.candidate.model]
        if not was_sent:
            self._attempts_left += 1
        if isinstance(error, UpstreamMisconfigured | UpstreamQuotaExhausted):
            _log.error("misconfigured", target=attempt.candidate.target.name, cause=error.cause)
        return self._retry_delay(attempt, policy.retry, error)

    def _record_health(self, attempt: Attempt, effect: HealthEffect, error: ParleyError) -> None:
        target = attempt.candidate.target
        if attempt.is_late and attempt.first_token is None:  # it has already counted as late
            if effect is HealthEffect.SUCCESS:
                target.breakers.clear_late(self._origin, attempt.permit)
            return
        target.breakers.record_failure(self._origin, attempt.permit, effect, type(error))

    def _retry_delay(self, attempt: Attempt, retry: Retry, error: ParleyError) -> float | None:
        if attempt.first_token is not None:  # the rest of the stream comes from a continuation
            return None
        retry_after = error.retry_after or 0.0
        retry_after = retry_after if retry_after <= MAX_INLINE_WAIT else 0.0
        retries_done = attempt.retries + (error.retries if isinstance(error, UpstreamUnavailable) else 0)
        if retry is Retry.AFTER_DELAY and not attempt.honored_retry_after:
            delay, retries, has_honored = retry_after, retries_done, True
        elif retry is Retry.BACKOFF and retries_done < MAX_RETRIES and not attempt.was_slow:
            backoff = INITIAL_BACKOFF * 2**retries_done * (0.5 + self._jitter())
            delay, retries, has_honored = max(retry_after, backoff), retries_done + 1, attempt.honored_retry_after
        else:
            return None
        if not self._may_retry(attempt, delay):
            return None
        attempt.retries, attempt.honored_retry_after = retries, has_honored
        return delay

    def _may_retry(self, attempt: Attempt, delay: float) -> bool:
        """Returns whether deadline, breaker and budget allow a retry that leaves each other candidate an attempt."""
        others = sum(candidate.target.admits(self._origin) for candidate in self._pending)
        in_time = self._deadline is None or self._clock() + delay < self._deadline
        admits = attempt.candidate.target.admits(self._origin)
        return self._attempts_left > others and in_time and admits and self._budget.try_withdraw()

    def _finish(self, attempt: Attempt, outcome: AttemptOutcome, error: ParleyError | None = None) -> None:
        attempt.ended = self._clock()
        attempt.outcome = outcome
        if error is not None:
            attempt.error = error.with_traceback(None)  # its frames refer to the attempt: a cycle

    def _check_deadline(self) -> None:
        if self._deadline is not None and self._clock() >= self._deadline:
            raise DeadlineExceeded
