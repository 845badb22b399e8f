"""The receipt of a call: its attempts, their outcomes and their cost."""

from collections.abc import Sequence

from parley.core.messages.text_completion import write_usage
from parley.core.usage import cost as usage_cost
from parley.core.usage.attempts import AttemptRecord
from parley.v1.error_reason_pb2 import ErrorReason
from parley.v1.receipt_pb2 import Receipt

_PREFIX = "ERROR_REASON_"


def settle(attempts: Sequence[AttemptRecord]) -> tuple[float | None, int]:
    """Records the cost of each attempt. All must have ended.

    Returns:
        The cost of all attempts, None if none has a price; the milliseconds from the start of the first attempt to the
        end of the last.
    """
    total: float | None = None
    start = end = attempts[0].started if attempts else 0.0
    for attempt in attempts:
        if attempt.price is not None and attempt.usage is not None:
            attempt.cost = usage_cost.cost(attempt.usage, attempt.price)
            total = (total or 0.0) + attempt.cost
        if attempt.ended is not None and attempt.ended > end:
            end = attempt.ended
    return total, int(1000 * (end - start) + 0.5)


def receipt(attempts: Sequence[AttemptRecord], cost: float | None, duration_ms: int) -> Receipt:
    """Returns the receipt of attempts.

    Args:
        attempts: The attempts, settled.
        cost: The cost of all attempts; None if it is not known.
        duration_ms: The milliseconds of all attempts.
    """
    result = Receipt()
    for attempt in attempts:
        _add(result, attempt, attempts[0].started)
    if cost is not None:
        result.cost = cost
    result.duration_ms = duration_ms
    used = usage_cost.total([attempt.usage for attempt in attempts if attempt.usage is not None])
    if used is not None:
        write_usage(result.usage, used)
    return result


def milliseconds(start: float, end: float | None) -> int:
    """Returns the rounded milliseconds between two times in seconds; 0 if the second one is unknown or earlier."""
    return int(1000 * (end - start) + 0.5) if end is not None and end > start else 0


def _add(receipt: Receipt, attempt: AttemptRecord, start: float) -> None:
    """Adds an attempt to a receipt."""
    result = receipt.attempts.add()  # arguments of `add`, above all a message, take longer than assignments
    result.model, result.backend, result.kind = attempt.model_id, attempt.backend, attempt.kind
    if attempt.target_model:
        result.target_model = attempt.target_model
    if attempt.outcome is not None:
        result.outcome = attempt.outcome
    result.started_ms = milliseconds(start, attempt.started)
    result.duration_ms = milliseconds(attempt.started, attempt.ended)
    if attempt.usage is not None:
        write_usage(result.usage, attempt.usage)
    if attempt.estimated:
        result.estimated = True
    if attempt.error is not None:
        result.reason = ErrorReason.Name(attempt.error.reason).removeprefix(_PREFIX)
    if attempt.first_token is not None:
        result.first_token_ms = milliseconds(attempt.started, attempt.first_token)
    if attempt.cost is not None:
        result.cost = attempt.cost
