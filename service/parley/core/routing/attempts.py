"""One request to one target, from the decision to make it to what it cost."""

from dataclasses import dataclass

from parley.core.ports import UpstreamCall
from parley.core.routing.targets import Candidate
from parley.core.usage.attempts import AttemptRecord, Kind


@dataclass(slots=True, eq=False, kw_only=True)
class Attempt(AttemptRecord):
    """One attempt, with what the next decisions about its call depend on.

    `permit` is its breaker's. `repeats` counts the repetitions at this target that led to it, `told` says whether one
    of them waited as the target had told. `whole`: it is asked for a whole answer, as the target cannot stream.
    `late`: its breaker was told that its first token is late.
    """

    candidate: Candidate
    permit: int
    repeats: int = 0
    told: bool = False
    whole: bool = False
    late: bool = False


def attempt_at(candidate: Candidate, call: UpstreamCall, kind: Kind, *, begun: float, permit: int) -> Attempt:
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
        begun=begun,
        permit=permit,
        resumes=kind is Kind.CONTINUATION,
    )
