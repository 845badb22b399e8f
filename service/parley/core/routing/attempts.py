"""One request to one target, from the decision to make it to what it cost."""

from dataclasses import dataclass

from parley.core.ports import UpstreamCall
from parley.core.routing.targets import Candidate
from parley.core.usage.attempts import AttemptKind, AttemptRecord


@dataclass(slots=True, eq=False, kw_only=True)
class Attempt(AttemptRecord):
    """One attempt, with what the next decisions about its call depend on.

    `permit` is its breaker's. `retries` counts the repetitions at this target that led to it, `honored_retry_after`
    says whether one of them waited as the target had told. `non_streaming`: it is asked for a whole answer, as the
    target cannot stream. `is_late`: its breaker was told that its first token is late.
    """

    candidate: Candidate
    permit: int
    retries: int = 0
    honored_retry_after: bool = False
    non_streaming: bool = False
    is_late: bool = False


def new_attempt(candidate: Candidate, call: UpstreamCall, kind: AttemptKind, *, started: float, permit: int) -> Attempt:
    """Returns an attempt that has begun at a candidate."""
    target = candidate.target
    return Attempt(
        candidate=candidate,
        model_id=candidate.model.id,
        backend=target.backend_name,
        target_model=target.model,
        price=target.price,
        call=call,
        kind=kind,
        started=started,
        permit=permit,
        is_continuation=kind is AttemptKind.CONTINUATION,
    )
