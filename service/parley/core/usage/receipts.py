"""The receipt of a call: its attempts, their outcomes and their cost. It is written as the bytes of its message."""

import struct
from collections.abc import Sequence
from functools import lru_cache

from parley.core.messages.text_completion import TokenCounts, usage_bytes
from parley.core.messages.wire import tag, varint, with_length
from parley.core.usage import cost as usage_cost
from parley.core.usage.attempts import AttemptRecord
from parley.v1.error_reason_pb2 import ErrorReason
from parley.v1.message_pb2 import Usage
from parley.v1.receipt_pb2 import Attempt, Receipt

_PREFIX = "ERROR_REASON_"
_ATTEMPTS, _USAGE, _COST = tag(Receipt, "attempts"), tag(Receipt, "usage"), tag(Receipt, "cost")
_DURATION = tag(Receipt, "duration_ms")
_STARTED, _OWN_DURATION, _FIRST_TOKEN = (tag(Attempt, name) for name in ("started_ms", "duration_ms", "first_token_ms"))
_OWN_USAGE, _OWN_COST = tag(Attempt, "usage"), tag(Attempt, "cost")
_REASON, _ESTIMATED = tag(Attempt, "reason"), Attempt(estimated=True).SerializeToString()
_DOUBLE = struct.Struct("<d")


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


def receipt(attempts: Sequence[AttemptRecord], cost: float | None, duration_ms: int) -> bytes:
    """Returns the receipt of attempts, serialized.

    Args:
        attempts: The attempts, settled.
        cost: The cost of all attempts; None if it is not known.
        duration_ms: The milliseconds of all attempts.
    """
    parts: list[bytes] = []
    usage = b""
    for attempt in attempts:
        usage = _usage(attempt.usage)
        parts += _ATTEMPTS, with_length(_attempt(attempt, attempts[0].started, usage))
    if len(attempts) > 1:
        usage = _usage(usage_cost.total([attempt.usage for attempt in attempts if attempt.usage is not None]))
    if usage:
        parts += _USAGE, usage
    if cost is not None:
        parts += _COST, _DOUBLE.pack(cost)
    parts += _DURATION, varint(duration_ms)
    return b"".join(parts)


def milliseconds(start: float, end: float | None) -> int:
    """Returns the rounded milliseconds between two times in seconds; 0 if the second one is unknown or earlier."""
    return int(1000 * (end - start) + 0.5) if end is not None and end > start else 0


def _usage(usage: Usage | TokenCounts | None) -> bytes:
    """Returns a usage with its length; empty without one."""
    return b"" if usage is None else with_length(usage_bytes(usage))


def _attempt(attempt: AttemptRecord, start: float, usage: bytes) -> bytes:
    """Returns an attempt, serialized.

    Args:
        attempt: The attempt.
        start: The start of the first attempt.
        usage: The attempt's usage with its length; empty without one.
    """
    parts = [
        _head(attempt.model_id, attempt.backend, attempt.target_model, attempt.kind, attempt.outcome or ""),
        _STARTED,
        varint(milliseconds(start, attempt.started)),
        _OWN_DURATION,
        varint(milliseconds(attempt.started, attempt.ended)),
    ]
    if usage:
        parts += _OWN_USAGE, usage
    if attempt.estimated:
        parts.append(_ESTIMATED)
    if attempt.error is not None:
        parts += _REASON, with_length(ErrorReason.Name(attempt.error.reason).removeprefix(_PREFIX).encode())
    if attempt.first_token is not None:
        parts += _FIRST_TOKEN, varint(milliseconds(attempt.started, attempt.first_token))
    if attempt.cost is not None:
        parts += _OWN_COST, _DOUBLE.pack(attempt.cost)
    return b"".join(parts)


@lru_cache(maxsize=1024)  # few of the targets of a configuration
def _head(model_id: str, backend: str, target_model: str, kind: str, outcome: str) -> bytes:
    """Returns the texts of an attempt, serialized."""
    texts = Attempt(model=model_id, backend=backend, kind=kind, outcome=outcome)
    if target_model:
        texts.target_model = target_model
    return texts.SerializeToString()
