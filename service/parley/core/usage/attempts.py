"""The record of one request to one target, for receipts: its reason, outcome and usage."""

from dataclasses import KW_ONLY, dataclass
from enum import StrEnum

from parley.config import Price
from parley.core.errors import ParleyError
from parley.core.messages.text_completion import TokenCounts
from parley.core.ports import UpstreamCall
from parley.v1.message_pb2 import Usage


class AttemptKind(StrEnum):
    """The reason for an attempt, as receipts name it."""

    __hash__ = str.__hash__  # that of enumerations is a Python function

    FIRST = "first"
    RETRY = "retry"
    FALLBACK = "fallback"
    HEDGE = "hedge"
    CONTINUATION = "continuation"
    SKIP_PREFIX = "skip_prefix"


class AttemptOutcome(StrEnum):
    """The outcome of an attempt, as receipts name it."""

    __hash__ = str.__hash__

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PREFIX_MISMATCH = "prefix_mismatch"


@dataclass(slots=True, eq=False)
class AttemptRecord:
    """One attempt. Times are seconds of the routing clock.

    Attributes:
        model_id: The id of the model that the target belongs to.
        backend: The name of the target's backend.
        target_model: The name of the model at the backend; empty if it is `model_id`.
        price: The price of the target's tokens; None if it is not configured.
        call: The upstream request.
        kind: The reason for the attempt.
        started: The time of the request.
        is_continuation: Whether the request has the delivered text as a prefill.
        first_token: The time of the first token; None before it.
        ended: The time of the end; None while the attempt runs.
        outcome: The outcome; None while the attempt runs.
        error: The error of a failed attempt.
        usage: The usage that the target reported, or an estimate.
        estimated: Whether `usage` is an estimate.
        cost: The cost, set with the receipt; None if it is not known.
        model_label: The id of the model in the configuration, if it is a wildcard; else empty.
        target_label: The name of the target in the configuration, if it differs from the target's; else empty.
        usage_model: As `model_label`, but empty for names that the configuration or the backend's own list has, so that
            their usage can be counted by name: callers cannot add any.
        usage_target: As `target_label`, but empty for such names.
    """

    model_id: str
    backend: str
    target_model: str
    price: Price | None
    call: UpstreamCall
    kind: AttemptKind
    started: float
    _: KW_ONLY
    is_continuation: bool = False
    first_token: float | None = None
    ended: float | None = None
    outcome: AttemptOutcome | None = None
    error: ParleyError | None = None
    usage: Usage | TokenCounts | None = None
    estimated: bool = False
    cost: float | None = None
    model_label: str = ""
    target_label: str = ""
    usage_model: str = ""
    usage_target: str = ""
