"""The record of one attempt, as the receipt and the decisions about its call see it."""

from dataclasses import dataclass, field

from parley.core.ports import UpstreamCall
from parley.core.routing.target_breakers import Permit
from parley.core.routing.targets import Candidate
from parley.core.usage.attempts import AttemptKind, AttemptRecord


@dataclass(slots=True, eq=False)
class Attempt(AttemptRecord):
    """One attempt, with what the next decisions about its call depend on.

    Attributes:
        candidate: The target.
        permit: The permit of the target's breakers.
        retries: How many retries at this target preceded the attempt.
        honored_retry_after: Whether one of these retries waited for the target's `Retry-After`.
        non_streaming: Whether the answer is requested without streaming because the target cannot stream.
        is_late: Whether the breaker has recorded the first token as late.
    """

    candidate: Candidate
    permit: Permit
    retries: int = field(default=0, init=False)
    honored_retry_after: bool = field(default=False, init=False)
    non_streaming: bool = field(default=False, init=False)
    is_late: bool = field(default=False, init=False)

    @property
    def was_slow(self) -> bool:
        """Whether the attempt failed so slowly that it is not retried at the same target.

        That is after more than the connect timeout, or more than a sixtieth of the total timeout but at least a second.
        """
        timeouts = self.candidate.model.timeouts
        limit = min(timeouts.connect, max(1.0, timeouts.total / 60))
        return self.ended is not None and self.ended - self.started > limit


def new_attempt(candidate: Candidate, call: UpstreamCall, kind: AttemptKind, started: float, permit: Permit) -> Attempt:
    """Returns the record of an attempt that starts now.

    Args:
        candidate: The target.
        call: The request.
        kind: Why the attempt is made.
        started: The time of the routing's clock in seconds.
        permit: The permit of the target's breakers.
    """
    target, model_id = candidate.target, candidate.model.id
    # Keywords would triple the time of the constructor.
    attempt = Attempt(model_id, target.backend_name, target.model, target.price, call, kind, started, candidate, permit)
    if candidate.model.label != model_id:  # a name of a wildcard
        attempt.model_label, attempt.target_label = candidate.model.label, target.label
        if not candidate.is_known_name:
            attempt.usage_model, attempt.usage_target = candidate.model.label, target.label
    if kind is AttemptKind.CONTINUATION:
        attempt.is_continuation = True
    return attempt
