"""One request to one target, from the decision to make it to what it cost."""

from dataclasses import dataclass
from enum import Enum

from parley.core.errors import ParleyError
from parley.core.ports import UpstreamCall
from parley.core.routing.targets import Candidate
from parley.v1.message_pb2 import Usage


class Kind(Enum):
    """Why an attempt is made; the words of the receipt."""

    FIRST = "first"
    RETRY = "retry"
    FALLBACK = "fallback"
    HEDGE = "hedge"
    CONTINUATION = "continuation"
    SPLICE = "splice"


class Outcome(Enum):
    """How an attempt ended; the words of the receipt."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    MISFIT = "misfit"


@dataclass(slots=True, eq=False)
class Attempt:
    """One attempt. Times are of the routing's clock, in seconds.

    `permit` is its breaker's. `repeats` counts the repetitions at this target that led to it, `told` says whether one
    of them waited as the target had told. `resumes`: it is asked to go on from what was delivered. `whole`: it is asked
    for a whole answer, as the target cannot stream. `late`: its breaker was told that its first token is late.
    `usage` is the target's own count, or an estimate (`estimated`).
    """

    candidate: Candidate
    call: UpstreamCall
    kind: Kind
    begun: float
    permit: int
    repeats: int = 0
    told: bool = False
    resumes: bool = False
    whole: bool = False
    late: bool = False
    first_token: float | None = None
    ended: float | None = None
    outcome: Outcome | None = None
    error: ParleyError | None = None
    usage: Usage | None = None
    estimated: bool = False
