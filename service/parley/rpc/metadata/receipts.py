"""The receipt of a call as trailing metadata for the caller and as fields of the log line."""

import json
import re
from collections.abc import Callable
from typing import Any, Literal

from parley.config import target_name
from parley.core.call import CallOutcome
from parley.core.messages.proto_json import dumps, from_message
from parley.core.usage.attempts import AttemptOutcome, AttemptRecord
from parley.core.usage.receipts import milliseconds
from parley.rpc.error_catalogue import reason_name
from parley.v1.message_pb2 import Usage
from parley.v1.receipt_pb2 import Attempt, Receipt

# Every gRPC client accepts 8 KiB of trailing metadata. The receipt is sent as base64, beside the longest error.
_MAX_SIZE = 2048  # bytes
_MAX_JSON_SIZE = _MAX_SIZE * 4 // 3  # characters: as many as those bytes have in base64
_KEY = "parley-receipt-bin"
FORM = "parley-receipt"
"""Metadata of a request that chooses the form of the receipt, and of an answer with a receipt in JSON."""
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
_DONE = AttemptOutcome.COMPLETED
_DETAILS: tuple[Literal["prompt_tokens_details", "completion_tokens_details"], ...] = (
    "prompt_tokens_details",
    "completion_tokens_details",
)
_PLACES = 9  # decimals of a cost; further digits of a sum of doubles are rounding errors


def metadata(data: bytes | None, form: str | None = None) -> tuple[tuple[str, str | bytes], ...]:
    """Returns `parley-receipt-bin`, or `parley-receipt` for the form `json`; empty without a receipt.

    Args:
        data: The receipt, serialized; None without one.
        form: The form.
    """
    if data is None:
        return ()
    if form == "json":
        return ((FORM, _json(_fitting(Receipt.FromString(data), lambda cut: len(_json(cut)), _MAX_JSON_SIZE))),)
    if len(data) > _MAX_SIZE:
        data = _fitting(Receipt.FromString(data), Receipt.ByteSize, _MAX_SIZE).SerializeToString()
    return ((_KEY, data),)


def add_fields(fields: dict[str, Any], outcome: CallOutcome) -> None:
    """Adds what the receipt says to the fields of the log line.

    These are `target`, which has answered; `cost`; `upstream_ms`; `attempts`, if there are several; `tried`, the
    attempts that did not complete; `guards`, if the call had any.
    """
    attempts, tried = outcome.attempts, []
    for attempt in attempts:
        if attempt.outcome is _DONE:
            fields["target"] = target_name(attempt.backend, attempt.target_model)
        else:
            tried.append(_tried(attempt))
    if outcome.cost is not None:
        fields["cost"] = round(outcome.cost, _PLACES)
    if attempts:
        fields["upstream_ms"] = outcome.duration_ms
    if tried or len(attempts) > 1:
        fields["attempts"] = len(attempts)
    if tried:
        fields["tried"] = tried
    if outcome.guards:
        fields["guards"] = [record.log_fields() for record in outcome.guards]


def _json(receipt: Receipt) -> str:
    """Returns the receipt as a JSON object in ASCII, as metadata requires."""
    return _NOT_ASCII.sub(lambda found: json.dumps(found[0])[1:-1], dumps(from_message(receipt)).decode())


def _fitting(receipt: Receipt, size: Callable[[Receipt], int], most: int) -> Receipt:
    """Returns the receipt cut to the size `most`: all sums, the first attempt and the latest ones.

    Unknown fields of a usage are removed first, because the answer has them too.
    """
    if size(receipt) <= most:
        return receipt
    cut = Receipt()
    cut.CopyFrom(receipt)
    parts: list[Receipt | Attempt] = [cut, *cut.attempts]
    for part in parts:
        if part.HasField("usage"):
            _drop_unknown(part.usage)
    while cut.attempts and size(cut) > most:
        del cut.attempts[1 if len(cut.attempts) > 2 else 0]  # noqa: PLR2004 - keeps the first and the last longest
        cut.left_out = len(receipt.attempts) - len(cut.attempts)
    if size(cut) > most:
        cut.usage.ClearField("cost_details")
    return cut


def _drop_unknown(usage: Usage) -> None:
    parts = [usage, *(getattr(usage, name) for name in _DETAILS if usage.HasField(name))]
    for part in parts:
        part.ClearField("extra_json")
        part.ClearField("extra")


def _tried(attempt: AttemptRecord) -> dict[str, Any]:
    tried: dict[str, Any] = {
        "target": target_name(attempt.backend, attempt.target_model),
        "kind": str(attempt.kind),
        "outcome": str(attempt.outcome or ""),
    }
    error = attempt.error
    if error is not None:
        tried["reason"] = reason_name(error.reason)
    tried["ms"] = milliseconds(attempt.started, attempt.ended)
    if error is not None and error.cause:
        tried["cause"] = error.cause
    return tried
