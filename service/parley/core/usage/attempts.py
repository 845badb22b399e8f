"""What a receipt says of one request to one target: why it was made, how it ended, what it cost."""

from dataclasses import dataclass
from enum import Enum

from parley.config import Price
from parley.core.errors import ParleyError
from parley.core.ports import UpstreamCall
from parley.v1.message_pb2 import Usage


class AttemptKind(Enum):
    """Why an attempt is made; the words of the receipt."""

    FIRST = "first"
    RETRY = "retry"
    FALLBACK = "fallback"
    HEDGE = "hedge"
    CONTINUATION = "continuation"
    SKIP_PREFIX = "skip_prefix"


class AttemptOutcome(Enum):
    """How an attempt ended; the words of the receipt."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PREFIX_MISMATCH = "prefix_mismatch"


@dataclass(slots=True, eq=False, kw_only=True)
class AttemptRecord:
    """One attempt. Times are of the routing's clock, in seconds.

    Attributes:
        model_id: The model whose target it is.
        backend: The target's backend.
        target_model: The name of the model at the backend; empty where it is `model_id`.
        price: What the target's tokens cost; None where that is not configured.
        call: The request.
        kind: Why the attempt is made.
        started: When it began.
        is_continuation: Whether the target is asked to go on from what was delivered.
        first_token: When its first token came.
        ended: When it ended.
        outcome: How it ended.
        error: Why it failed.
        usage: The target's own count, or an estimate.
        estimated: Whether `usage` is an estimate.
    """

    model_id: str
    backend: str
    target_model: str
    price: Price | None
    call: UpstreamCall
    kind: AttemptKind
    started: float
    is_continuation: bool = False
    first_token: float | None = None
    ended: float | None = None
    outcome: AttemptOutcome | None = None
    error: ParleyError | None = None
    usage: Usage | None = None
    estimated: bool = False
