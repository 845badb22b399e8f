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
from parley.core.routing.attempts import Attempt, attempt_at
from parley.core.routing.breaker import UNHEARD, Clock
from parley.core.routing.budget import Budget
from parley.core.routing.failure_policy import SHORT_WAIT, Health, Next, Repeat, verdict
from parley.core.routing.first_token_latency import UNKNOWN_SECONDS
from parley.core.routing.targets import Candidate
from parley.core.usage.attempts import Kind, Outcome

MOST_REPEATS = 2
_POLL_SECONDS = 1.0
FIRST_BACKOFF = 0.4

_log = structlog.get_logger()


class Course:
    """The attempts of one call of the model `model_id`, at `candidates` in their order.

    `deadline` is the caller's, a time of `clock`; `account` is whose call it is. `jitter` returns a number from 0 to 1.
    """

    def __init__(  # noqa: PLR0913 - what a call's course depends on
        self,
        model_id: str,
        candidates: Sequence[Candidate],
        retries: Retries,
        budget: Budget,
        *,
        deadline: float | None,
        clock: Clock,
        account: str = "",
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._model_id = model_id
        self._waiting = deque(candidates)
        self._left = retries.attempts
        self._budget = budget
        self._deadline = deadline
        self._clock = clock
        self._account = account
        self._jitter = jitter
        self._full = False
        self._passed_over = False  # somebody who is not well just now
        self._slow: list[Candidate] = []  # not asked, but only because they are slow
        self._error: ParleyError | None = None
        self._asked = list(candidates)
        self.attempts: list[Attempt] = []
        budget.called()

    @property
    def has_choice(self) -> bool:
        """Tells whether the call has more than one target or fallback."""
        return len(self._asked) > 1

    @property
    def has_more(self) -> bool:
        """Tells whether anybody is left who could be asked."""
        return self._left > 0 and any(candidate.target.admits(self._account) for candidate in self._waiting)

    def seconds(self, most: float) -> float:
        """Returns as many seconds as may still be waited for something: at most so many, and none past the deadline."""
        return most if self._deadline is None else max(0.0, min(most, self._deadline - self._clock()))

    def hedge_in(self, after: float | None) -> float:
        """Returns in how many seconds the call is hedged: `after` so many, or where that is None, when it is late."""
        waiting = self._waiting_for_token()
        if waiting is None or waiting.whole:
            return min(after or _POLL_SECONDS, _POLL_SECONDS)
        late_after = after or waiting.candidate.target.first_tokens.late_after() or UNKNOWN_SECONDS
        return waiting.begun + late_after - self._clock()

    def may_hedge(self) -> bool:
        """Takes a repetition for a hedge; False where nobody is left for it, or the budget has none.

        A call that waits at a target whose breaker is open needs none: elsewhere it is the first one.
        """
        waiting = self._waiting_for_token()
        is_free = waiting is not None and not waiting.candidate.target.breaker.is_closed
        return self.has_more and (is_free or self._budget.repeat())

    def _waiting_for_token(self) -> Attempt | None:
        return next((one for one in reversed(self.attempts) if one.outcome is None), None)

    def next(self) -> Candidate:
        """Takes the next candidate that may be asked. Raises what the caller is told where there is none."""
        self._check_deadline()
        while self._waiting and self._left > 0:
            candidate = self._waiting.popleft()
            if candidate.target.admits(self._account):
                return candidate
            self._passed_over = True
            if candidate.target.is_only_slow(self._account):
                self._slow.append(candidate)
        if self._slow and self._left > 0:
            return self._slow.pop(0)
        raise self._final()

    def begin(
        self, candidate: Candidate, call: UpstreamCall, kind: Kind, before: Attempt | None = None
    ) -> Attempt | None:
        """Begins an attempt; None where the breaker has shut meanwhile. `before` is the one that it repeats."""
        self._check_deadline()
        target = candidate.target
        permit = target.enter(self._account) if self._left > 0 else None
        if permit is None and self._left > 0 and not self.has_more and target.is_only_slow(self._account):
            permit = UNHEARD
        if permit is None:
            return None
        self._left -= 1
        attempt = attempt_at(candidate, call, kind, begun=self._clock(), permit=permit)
        if before is not None:
            attempt.repeats, attempt.told = before.repeats, before.told
            attempt.resumes, attempt.whole = before.resumes, before.whole
        self.attempts.append(attempt)
        return attempt

    def cannot(self, error: UnsupportedParameter) -> None:
        """Notes that a candidate cannot be asked this."""
        self._remember(error)

    def is_full(self) -> None:
        """Notes that a candidate had no place for the call."""
        self._full = True

    def began(self, attempt: Attempt) -> None:
        """Notes an attempt's first token."""
        attempt.first_token = self._clock()
        target = attempt.candidate.target
        target.first_tokens.add(attempt.first_token - attempt.begun)
        if attempt.late:
            target.breaker.clear(attempt.permit)
        attempt.permit = target.breaker.began(attempt.permit)
        target.doubts.record_success()

    def late_in(self, attempt: Attempt) -> float | None:
        """Returns after how many seconds of waiting for its first token an attempt is late; None for never.

        Where little is known of its target that is a quarter of `first_token`. A call that cannot go elsewhere is not.
        """
        if not self.has_choice or attempt.whole:
            return None
        late_after = attempt.candidate.target.first_tokens.late_after()
        return late_after or attempt.candidate.model.timeouts.first_token / 4

    def late(self, attempt: Attempt) -> None:
        """Notes that the first token of an attempt is late, unless nobody else may be asked in its place."""
        target = attempt.candidate.target
        others = (one.target for one in self._asked if one.target is not target)
        if attempt.outcome is None and any(other.admits(self._account) for other in others):
            attempt.late = True
            target.breaker.suspect(attempt.permit)

    def completed(self, attempt: Attempt) -> None:
        """Notes that an attempt has answered."""
        self._end(attempt, Outcome.COMPLETED)
        attempt.candidate.target.breaker.succeeded(attempt.permit)
        attempt.candidate.target.doubts.record_success()

    def left(self, attempt: Attempt, outcome: Outcome = Outcome.CANCELLED) -> None:
        """Notes that an attempt was given up, for no fault of its target. One that was too slow may be asked again."""
        if attempt.outcome is None:
            self._end(attempt, outcome)
            attempt.candidate.target.breaker.left(attempt.permit)
            if outcome is Outcome.CANCELLED:
                self._waiting.append(attempt.candidate)

    def refused(self, attempt: Attempt, error: ParleyError) -> None:
        """Notes that a target does not go on from the beginning of an answer, which is no fault of it."""
        self._end(attempt, Outcome.FAILED, error)
        self._record(attempt, Health.SUCCESS, error)

    def failed(self, attempt: Attempt, error: ParleyError) -> float | None:
        """Notes a failure; returns after how many seconds the same target is asked again, None where another one is.

        Raises the error where nobody else would answer any better.
        """
        was_asked = not isinstance(error, UnsupportedParameter)
        error = added_parameters.not_blaming(attempt.call, error)
        row = verdict(error)
        self._end(attempt, Outcome.FAILED, error)
        self._record(attempt, row.health, error)
        if row.hold and error.retry_after is not None:
            attempt.candidate.target.breaker.hold(error.retry_after, type(error))
        if row.next is Next.NOBODY:
            raise error
        self._remember(error)
        if row.next is Next.FALLBACKS:
            self._waiting = deque(other for other in self._waiting if other.model is not attempt.candidate.model)
        if not was_asked:
            self._left += 1
        if isinstance(error, UpstreamMisconfigured | UpstreamQuotaExhausted):
            _log.error("misconfigured", target=attempt.candidate.target.name, cause=error.cause)
        return self._pause(attempt, row.repeat, error)

    def _record(self, attempt: Attempt, health: Health, error: ParleyError) -> None:
        target = attempt.candidate.target
        breaker = target.breaker
        if attempt.late and attempt.first_token is None:  # it was counted while it waited
            if health is Health.SUCCESS:
                breaker.clear(attempt.permit)
            return
        counts = health is Health.SUSPECT and target.doubts.record_failure(self._account, type(error))
        if counts or health is Health.FAILURE:
            breaker.failed(attempt.permit, type(error))
        elif health is Health.SUCCESS:
            breaker.succeeded(attempt.permit)
        else:
            breaker.left(attempt.permit)

    def _pause(self, attempt: Attempt, repeat: Repeat, error: ParleyError) -> float | None:
        told = error.retry_after if error.retry_after is not None and error.retry_after <= SHORT_WAIT else 0.0
        done = attempt.repeats + (error.repeats if isinstance(error, UpstreamUnavailable) else 0)
        if repeat is Repeat.AS_TOLD and not attempt.told:
            pause, repeats, has_waited = told, done, True
        elif repeat is Repeat.BACKOFF and done < MOST_REPEATS and not _was_slow(attempt):
            backoff = FIRST_BACKOFF * 2**done * (0.5 + self._jitter())
            pause, repeats, has_waited = max(told, backoff), done + 1, attempt.told
        else:
            return None
        if not self._may_repeat(attempt, pause):
            return None
        attempt.repeats, attempt.told = repeats, has_waited
        return pause

    def _may_repeat(self, attempt: Attempt, pause: float) -> bool:
        """Keeps an attempt for each who has not been asked yet, the deadline, the breaker, and the model's budget."""
        others = sum(candidate.target.admits(self._account) for candidate in self._waiting)
        in_time = self._deadline is None or self._clock() + pause < self._deadline
        admits = attempt.candidate.target.admits(self._account)
        return self._left > others and in_time and admits and self._budget.repeat()

    def _end(self, attempt: Attempt, outcome: Outcome, error: ParleyError | None = None) -> None:
        attempt.ended = self._clock()
        attempt.outcome = outcome
        attempt.error = error and error.with_traceback(None)  # its frames know the attempt: nobody would be free of it

    def _remember(self, error: ParleyError) -> None:
        """Keeps what tells the caller most: a conversation that is too long, else the latest failure of a backend."""
        if isinstance(self._error, ContextLengthExceeded) or _is_sooner(self._error, error):
            return
        if self._error is None or not isinstance(error, UnsupportedParameter):
            self._error = error

    def _check_deadline(self) -> None:
        if self._deadline is not None and self._clock() >= self._deadline:
            raise DeadlineExceeded

    def _final(self) -> ParleyError:
        may_pass = self._full or self._passed_over
        if self._error is not None and not (may_pass and isinstance(self._error, UnsupportedParameter)):
            return self._with_known_wait(self._error)
        if self._full:
            return self._busy(1, "every target has as many calls as it may have")
        return self._kept_away()

    def _kept_away(self) -> ParleyError:
        """Returns the error where no target may be asked: for the reason that the soonest available one has."""
        healthy = [candidate.target for candidate in self._asked if candidate.target.well]
        soonest = min(healthy, key=lambda target: target.retry_in(self._account), default=None)
        wait = max(1.0, soonest.retry_in(self._account)) if soonest else 1.0
        reason = soonest.cause(self._account) if soonest else None
        if reason is UpstreamRateLimited:
            return self._busy(wait, "no target is asked: their rate limits are used up")
        if reason is UpstreamQuotaExhausted:
            return UpstreamQuotaExhausted(self._model_id, cause="no target is asked: their quota is used up")
        message = f'The model "{self._model_id}" is not available; try again later'
        cause = "no target is asked: each has failed lately, or its health check fails"
        return UpstreamUnavailable(message, retry_after=wait, cause=cause)

    def _busy(self, wait: float, cause: str) -> UpstreamRateLimited:
        message = f'The model "{self._model_id}" is receiving too many requests; try again later'
        return UpstreamRateLimited(message, retry_after=wait, cause=cause)

    def _with_known_wait(self, error: ParleyError) -> ParleyError:
        """Raises the wait of a temporary failure to the time at which a target may be asked again."""
        if isinstance(error, UpstreamRateLimited | UpstreamUnavailable):
            soonest = min(candidate.target.retry_in(self._account) for candidate in self._asked)
            if soonest > (error.retry_after or 0.0):
                error.retry_after = soonest
        return error


def _is_sooner(one: ParleyError | None, other: ParleyError) -> bool:
    """Tells whether both are rate limits, and the first one ends before the other."""
    if not (isinstance(one, UpstreamRateLimited) and isinstance(other, UpstreamRateLimited)):
        return False
    return (one.retry_after or 0.0) < (other.retry_after or 0.0)


def _was_slow(attempt: Attempt) -> bool:
    """Tells whether a failure took so long that a caller should not wait for it several times.

    That is longer than a connection may take, or than a sixtieth of `total`; a second is never long.
    """
    timeouts = attempt.candidate.model.timeouts
    most = min(timeouts.connect, max(1.0, timeouts.total / 60))
    return attempt.ended is not None and attempt.ended - attempt.begun > most
