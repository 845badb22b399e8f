"""The course of one call through its targets: who is asked, how often, and when it is given up.

Nothing here waits or connects: a course is told what came of each attempt, and says what is next. The table that it
follows is in `failure_policy`.
"""

import random
from collections import deque
from collections.abc import Callable, Sequence

import structlog

from parley.config import Retries
from parley.core.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    ParleyError,
    UnsupportedParameter,
    UpstreamMisconfigured,
    UpstreamQuotaExhausted,
    UpstreamRateLimited,
    UpstreamUnavailable,
)
from parley.core.ports import UpstreamCall
from parley.core.routing import added_parameters
from parley.core.routing.attempts import Attempt, new_attempt
from parley.core.routing.breaker import IGNORED_PERMIT, Clock
from parley.core.routing.budget import RetryBudget
from parley.core.routing.failure_policy import MAX_INLINE_WAIT, HealthEffect, NextTargets, Retry, policy_for
from parley.core.routing.first_token_latency import DEFAULT_SECONDS
from parley.core.routing.targets import Candidate
from parley.core.usage.attempts import AttemptKind, AttemptOutcome

MAX_RETRIES = 2
_POLL_SECONDS = 1.0
INITIAL_BACKOFF = 0.4

_log = structlog.get_logger()


class RetryState:
    """The attempts of one call of the model `model_id`, at `candidates` in their order.

    `deadline` is the caller's, a time of `clock`; `account` is whose call it is. `jitter` returns a number from 0 to 1.
    """

    def __init__(  # noqa: PLR0913 - what a call's course depends on
        self,
        model_id: str,
        candidates: Sequence[Candidate],
        retries: Retries,
        budget: RetryBudget,
        *,
        deadline: float | None,
        clock: Clock,
        account: str = "",
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._model_id = model_id
        self._pending = deque(candidates)
        self._attempts_left = retries.attempts
        self._budget = budget
        self._deadline = deadline
        self._clock = clock
        self._account = account
        self._jitter = jitter
        self._at_capacity = False
        self._skipped_unhealthy = False  # somebody who is not well just now
        self._slow_candidates: list[Candidate] = []  # not asked, but only because they are slow
        self._last_error: ParleyError | None = None
        self._candidates = list(candidates)
        self.attempts: list[Attempt] = []
        budget.deposit()

    @property
    def has_alternatives(self) -> bool:
        """Tells whether the call has more than one target or fallback."""
        return len(self._candidates) > 1

    @property
    def has_remaining(self) -> bool:
        """Tells whether anybody is left who could be asked."""
        return self._attempts_left > 0 and any(candidate.target.admits(self._account) for candidate in self._pending)

    def remaining_seconds(self, limit: float) -> float:
        """Returns as many seconds as may still be waited for something: at most so many, and none past the deadline."""
        return limit if self._deadline is None else max(0.0, min(limit, self._deadline - self._clock()))

    def hedge_delay(self, after: float | None) -> float:
        """Returns in how many seconds the call is hedged: `after` so many, or where that is None, when it is late."""
        waiting = self._awaiting_first_token()
        if waiting is None or waiting.non_streaming:
            return min(after or _POLL_SECONDS, _POLL_SECONDS)
        threshold = after or waiting.candidate.target.first_token_latency.late_threshold() or DEFAULT_SECONDS
        return waiting.started + threshold - self._clock()

    def try_hedge(self) -> bool:
        """Takes a repetition for a hedge; False where nobody is left for it, or the budget has none.

        A call that waits at a target whose breaker is open needs none: elsewhere it is the first one.
        """
        waiting = self._awaiting_first_token()
        is_free = waiting is not None and not waiting.candidate.target.breaker.is_closed
        return self.has_remaining and (is_free or self._budget.try_withdraw())

    def _awaiting_first_token(self) -> Attempt | None:
        return next((one for one in reversed(self.attempts) if one.outcome is None), None)

    def next_candidate(self) -> Candidate:
        """Takes the next candidate that may be asked. Raises what the caller is told where there is none."""
        self._check_deadline()
        while self._pending and self._attempts_left > 0:
            candidate = self._pending.popleft()
            if candidate.target.admits(self._account):
                return candidate
            self._skipped_unhealthy = True
            if candidate.target.is_only_slow(self._account):
                self._slow_candidates.append(candidate)
        if self._slow_candidates and self._attempts_left > 0:
            return self._slow_candidates.pop(0)
        raise self._final_error()

    def start_attempt(
        self, candidate: Candidate, call: UpstreamCall, kind: AttemptKind, previous: Attempt | None = None
    ) -> Attempt | None:
        """Begins an attempt; None where the breaker has shut meanwhile. `previous` is the one that it repeats."""
        self._check_deadline()
        target = candidate.target
        permit = target.try_acquire_permit(self._account) if self._attempts_left > 0 else None
        if permit is None and self._attempts_left > 0 and not self.has_remaining and target.is_only_slow(self._account):
            permit = IGNORED_PERMIT
        if permit is None:
            return None
        self._attempts_left -= 1
        attempt = new_attempt(candidate, call, kind, started=self._clock(), permit=permit)
        if previous is not None:
            attempt.retries, attempt.honored_retry_after = previous.retries, previous.honored_retry_after
            attempt.is_continuation, attempt.non_streaming = previous.is_continuation, previous.non_streaming
        self.attempts.append(attempt)
        return attempt

    def unsupported(self, error: UnsupportedParameter) -> None:
        """Notes that a candidate cannot be asked this."""
        self._remember_error(error)

    def no_capacity(self) -> None:
        """Notes that a candidate had no place for the call."""
        self._at_capacity = True

    def first_token_received(self, attempt: Attempt) -> None:
        """Notes an attempt's first token."""
        attempt.first_token = self._clock()
        target = attempt.candidate.target
        target.first_token_latency.add(attempt.first_token - attempt.started)
        if attempt.is_late:
            target.breaker.clear_late(attempt.permit)
        attempt.permit = target.breaker.record_first_token(attempt.permit)
        target.suspect_failures.record_success()

    def first_token_threshold(self, attempt: Attempt) -> float | None:
        """Returns after how many seconds of waiting for its first token an attempt is late; None for never.

        Where little is known of its target that is a quarter of `first_token`. A call that cannot go elsewhere is not.
        """
        if not self.has_alternatives or attempt.non_streaming:
            return None
        threshold = attempt.candidate.target.first_token_latency.late_threshold()
        return threshold or attempt.candidate.model.timeouts.first_token / 4

    def first_token_late(self, attempt: Attempt) -> None:
        """Notes that the first token of an attempt is late, unless nobody else may be asked in its place."""
        target = attempt.candidate.target
        others = (one.target for one in self._candidates if one.target is not target)
        if attempt.outcome is None and any(other.admits(self._account) for other in others):
            attempt.is_late = True
            target.breaker.record_late(attempt.permit)

    def completed(self, attempt: Attempt) -> None:
        """Notes that an attempt has answered."""
        self._finish(attempt, AttemptOutcome.COMPLETED)
        attempt.candidate.target.breaker.record_success(attempt.permit)
        attempt.candidate.target.suspect_failures.record_success()

    def cancelled(self, attempt: Attempt, outcome: AttemptOutcome = AttemptOutcome.CANCELLED) -> None:
        """Notes that an attempt was given up, for no fault of its target. One that was too slow may be asked again."""
        if attempt.outcome is None:
            self._finish(attempt, outcome)
            attempt.candidate.target.breaker.release(attempt.permit)
            if outcome is AttemptOutcome.CANCELLED:
                self._pending.append(attempt.candidate)

    def mode_rejected(self, attempt: Attempt, error: ParleyError) -> None:
        """Notes that a target does not go on from the beginning of an answer, which is no fault of it."""
        self._finish(attempt, AttemptOutcome.FAILED, error)
        self._record_health(attempt, HealthEffect.SUCCESS, error)

    def failed(self, attempt: Attempt, error: ParleyError) -> float | None:
        """Notes a failure; returns after how many seconds the same target is asked again, None where another one is.

        Raises the error where nobody else would answer any better.
        """
        was_sent = not isinstance(error, UnsupportedParameter)
        error = added_parameters.as_misconfigured(attempt.call, error)
        policy = policy_for(error)
        self._finish(attempt, AttemptOutcome.FAILED, error)
        self._record_health(attempt, policy.health_effect, error)
        if policy.hold and error.retry_after is not None:
            attempt.candidate.target.breaker.hold(error.retry_after, type(error))
        if policy.next is NextTargets.NONE:
            raise error
        self._remember_error(error)
        if policy.next is NextTargets.FALLBACKS:
            self._pending = deque(other for other in self._pending if other.model is not attempt.candidate.model)
        if not was_sent:
            self._attempts_left += 1
        if isinstance(error, UpstreamMisconfigured | UpstreamQuotaExhausted):
            _log.error("misconfigured", target=attempt.candidate.target.name, cause=error.cause)
        return self._retry_delay(attempt, policy.retry, error)

    def _record_health(self, attempt: Attempt, effect: HealthEffect, error: ParleyError) -> None:
        target = attempt.candidate.target
        breaker = target.breaker
        if attempt.is_late and attempt.first_token is None:  # it was counted while it waited
            if effect is HealthEffect.SUCCESS:
                breaker.clear_late(attempt.permit)
            return
        counts = effect is HealthEffect.SUSPECT and target.suspect_failures.record_failure(self._account, type(error))
        if counts or effect is HealthEffect.FAILURE:
            breaker.record_failure(attempt.permit, type(error))
        elif effect is HealthEffect.SUCCESS:
            breaker.record_success(attempt.permit)
        else:
            breaker.release(attempt.permit)

    def _retry_delay(self, attempt: Attempt, retry: Retry, error: ParleyError) -> float | None:
        retry_after = (
            error.retry_after if error.retry_after is not None and error.retry_after <= MAX_INLINE_WAIT else 0.0
        )
        retries_done = attempt.retries + (error.retries if isinstance(error, UpstreamUnavailable) else 0)
        if retry is Retry.AFTER_DELAY and not attempt.honored_retry_after:
            delay, retries, has_honored = retry_after, retries_done, True
        elif retry is Retry.BACKOFF and retries_done < MAX_RETRIES and not _was_slow(attempt):
            backoff = INITIAL_BACKOFF * 2**retries_done * (0.5 + self._jitter())
            delay, retries, has_honored = max(retry_after, backoff), retries_done + 1, attempt.honored_retry_after
        else:
            return None
        if not self._may_retry(attempt, delay):
            return None
        attempt.retries, attempt.honored_retry_after = retries, has_honored
        return delay

    def _may_retry(self, attempt: Attempt, delay: float) -> bool:
        """Keeps an attempt for each who has not been asked yet, the deadline, the breaker, and the model's budget."""
        others = sum(candidate.target.admits(self._account) for candidate in self._pending)
        in_time = self._deadline is None or self._clock() + delay < self._deadline
        admits = attempt.candidate.target.admits(self._account)
        return self._attempts_left > others and in_time and admits and self._budget.try_withdraw()

    def _finish(self, attempt: Attempt, outcome: AttemptOutcome, error: ParleyError | None = None) -> None:
        attempt.ended = self._clock()
        attempt.outcome = outcome
        attempt.error = error and error.with_traceback(None)  # its frames know the attempt: nobody would be free of it

    def _remember_error(self, error: ParleyError) -> None:
        """Keeps what tells the caller most: a conversation that is too long, else the latest failure of a backend."""
        if isinstance(self._last_error, ContextLengthExceeded) or _resets_earlier(self._last_error, error):
            return
        if self._last_error is None or not isinstance(error, UnsupportedParameter):
            self._last_error = error

    def _check_deadline(self) -> None:
        if self._deadline is not None and self._clock() >= self._deadline:
            raise DeadlineExceeded

    def _final_error(self) -> ParleyError:
        may_pass = self._at_capacity or self._skipped_unhealthy
        if self._last_error is not None and not (may_pass and isinstance(self._last_error, UnsupportedParameter)):
            return self._with_retry_after(self._last_error)
        if self._at_capacity:
            return self._rate_limited_error(1, "every target has as many calls as it may have")
        return self._unavailable_error()

    def _unavailable_error(self) -> ParleyError:
        """Returns the error where no target may be asked: for the reason that the soonest available one has."""
        healthy = [candidate.target for candidate in self._candidates if candidate.target.healthy]
        soonest = min(healthy, key=lambda target: target.remaining_delay(self._account), default=None)
        wait = max(1.0, soonest.remaining_delay(self._account)) if soonest else 1.0
        reason = soonest.cause(self._account) if soonest else None
        if reason is UpstreamRateLimited:
            return self._rate_limited_error(wait, "no target is asked: their rate limits are used up")
        if reason is UpstreamQuotaExhausted:
            return UpstreamQuotaExhausted(self._model_id, cause="no target is asked: their quota is used up")
        message = f'The model "{self._model_id}" is not available; try again later'
        cause = "no target is asked: each has failed lately, or its health check fails"
        return UpstreamUnavailable(message, retry_after=wait, cause=cause)

    def _rate_limited_error(self, wait: float, cause: str) -> UpstreamRateLimited:
        message = f'The model "{self._model_id}" is receiving too many requests; try again later'
        return UpstreamRateLimited(message, retry_after=wait, cause=cause)

    def _with_retry_after(self, error: ParleyError) -> ParleyError:
        """Raises the wait of a temporary failure to the time at which a target may be asked again."""
        if isinstance(error, UpstreamRateLimited | UpstreamUnavailable):
            soonest = min(candidate.target.remaining_delay(self._account) for candidate in self._candidates)
            if soonest > (error.retry_after or 0.0):
                error.retry_after = soonest
        return error


def _resets_earlier(one: ParleyError | None, other: ParleyError) -> bool:
    """Tells whether both are rate limits, and the first one ends before the other."""
    if not (isinstance(one, UpstreamRateLimited) and isinstance(other, UpstreamRateLimited)):
        return False
    return (one.retry_after or 0.0) < (other.retry_after or 0.0)


def _was_slow(attempt: Attempt) -> bool:
    """Tells whether a failure took so long that a caller should not wait for it several times.

    That is longer than a connection may take, or than a sixtieth of `total`; a second is never long.
    """
    timeouts = attempt.candidate.model.timeouts
    limit = min(timeouts.connect, max(1.0, timeouts.total / 60))
    return attempt.ended is not None and attempt.ended - attempt.started > limit
