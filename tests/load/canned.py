"""The upstream's answers, and their check by the load clients."""

import json
from itertools import pairwise
from typing import Any

EVENTS = 100
GAP_SECONDS = 0.02
STAMP_DIGITS = 18
TOKENS = [f" word{number:03d}" for number in range(EVENTS)]
TEXT = "".join(TOKENS)
QUESTION = "What is the capital of France, and why has it been so for so long?"

_ENVELOPE = {"id": "chatcmpl-upstream0001", "created": 1750000000, "model": "canned"}
_USAGE = {"prompt_tokens": 17, "completion_tokens": EVENTS, "total_tokens": 17 + EVENTS}


class WrongAnswerError(Exception):
    """An answer differs from that of the upstream; the text describes the difference."""


def completion() -> bytes:
    """Returns the body of the unary answer: JSON with the complete TEXT."""
    message = {"role": "assistant", "content": TEXT}
    choices = [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}]
    return _json({**_ENVELOPE, "object": "chat.completion", "choices": choices, "usage": _USAGE})


def role() -> bytes:
    """Returns the first event of a stream."""
    return _event([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])


def delta(text: str) -> bytes:
    """Returns an event with a part of the answer."""
    return _event([{"index": 0, "delta": {"content": text}, "finish_reason": None}])


def ending() -> list[bytes]:
    """Returns the events after the last delta: finish reason, usage, [DONE]."""
    finish = _event([{"index": 0, "delta": {}, "finish_reason": "stop"}])
    return [finish, _event([], usage=_USAGE), b"data: [DONE]\n\n"]


def stamp(now_ns: int) -> str:
    """Returns the text of a paced event: its send time on the machine's monotonic clock."""
    return f"@{now_ns:0{STAMP_DIGITS}d}"


def check_text(kind: str, text: str, finish_reason: str | None) -> None:
    """Raises WrongAnswerError unless this is the complete text of a unary, burst or paced call."""
    if finish_reason != "stop":
        raise WrongAnswerError(f"finish_reason is {finish_reason!r}")
    if kind == "paced":
        _check_stamps(text)
    elif text != TEXT:
        raise WrongAnswerError(f"the text has {len(text)} characters of {len(TEXT)}, or other ones: {text[:60]!r}")


def _check_stamps(text: str) -> None:
    """Raises WrongAnswerError unless the text has one timestamp per event, in increasing order."""
    stamps = text.split("@")[1:]
    non_streaming = all(len(item) == STAMP_DIGITS for item in stamps)
    if len(stamps) != EVENTS or not non_streaming or not all(a < b for a, b in pairwise(stamps)):
        raise WrongAnswerError(f"{len(stamps)} paced events of {EVENTS}, or out of order")


def _event(choices: list[dict[str, Any]], **more: Any) -> bytes:
    """Returns a server-sent event with a chunk."""
    return b"data: %b\n\n" % _json({**_ENVELOPE, "object": "chat.completion.chunk", "choices": choices, **more})


def _json(value: Any) -> bytes:
    """Serializes JSON without spaces, as upstreams do."""
    return json.dumps(value, separators=(",", ":")).encode()
