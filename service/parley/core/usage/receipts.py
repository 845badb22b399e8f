"""The receipt of a call: its attempts, their outcomes and their cost."""

from collections.abc import Sequence

from parley.core.usage import cost as usage_cost
from parley.core.usage.attempts import AttemptRecord
from parley.v1.error_reason_pb2 import ErrorReason
from parley.v1.receipt_pb2 import Receipt

_PREFIX = "ERROR_REASON_"


def receipt(attempts: Sequence[AttemptRecord]) -> Receipt:
    """Returns the receipt of attempts that have all ended, and records the cost of each."""
    result, duration = Receipt(), 0
    for attempt in attempts:
        start = attempts[0].started
        _add(result, attempt, start)
        if attempt.cost is not None:
            result.cost += attempt.cost
        duration = max(duration, _ms(start, attempt.ended))
    result.duration_ms = duration
    if not attempts:
        return result
    used = attempts[0].usage
    if len(attempts) > 1:
        used = usage_cost.total([attempt.usage for attempt in attempts if attempt.usage is not None])
    if used is not None:
        result.usage.CopyFrom(used)
    return result


def _add(receipt: Receipt, attempt: AttemptRecord, start: float) -> None:
    """Adds an attempt to a receipt."""
    result = receipt.attempts.add()  # arguments of `add`, above all a message, take longer than assignments
    result.model, result.backend, result.kind = attempt.model_id, attempt.backend, attempt.kind
    if attempt.target_model:
        result.target_model = attempt.target_model
    if attempt.outcome is not None:
        result.outcome = attempt.outcome
    result.started_ms, result.duration_ms = _ms(start, attempt.started), _ms(attempt.started, attempt.ended)
    if attempt.usage is not None:
        result.usage.CopyFrom(attempt.usage)
    if attempt.estimated:
        result.estimated = True
    if attempt.error is not None:
        result.reason = ErrorReason.Name(attempt.error.reason).removeprefix(_PREFIX)
    if attempt.first_token is not None:
        result.first_token_ms = _ms(attempt.started, attempt.first_token)
    if attempt.usage is not None and attempt.price is not None:
        result.cost = attempt.cost = usage_cost.cost(attempt.usage, attempt.price)


def _ms(start: float, end: float | None) -> int:
    return int(1000 * (end - start) + 0.5) if end is not None and end > start else 0
