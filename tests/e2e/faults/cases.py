"""The table of failures: the behavior of the primary, the expected attempts, and the expected result.

`tried` is the receipt and the requests that the upstreams receive: "target kind outcome", with the reason as outcome of
a failure. The targets are `primary` and `other` of the requested model, and `fallback` of its fallback model.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from tests.e2e.faults.scripts import (
    HALF,
    TEXT,
    Script,
    break_off,
    continue_prefill,
    reject,
)
from tests.upstream import Answer, Cut, Received

DOWN, SLOW, BROKEN = "UPSTREAM_UNAVAILABLE", "UPSTREAM_TIMEOUT", "STREAM_BROKEN"
BUSY, CONTEXT, POLICY, REJECTED = (
    "UPSTREAM_RATE_LIMITED",
    "CONTEXT_LENGTH_EXCEEDED",
    "CONTENT_POLICY",
    "UPSTREAM_REJECTED",
)
QUOTA = "UPSTREAM_QUOTA_EXHAUSTED"
UNARY, STREAMED = "unary", "streamed"
BOTH, ONLY_STREAMED, ONLY_UNARY = (UNARY, STREAMED), (STREAMED,), (UNARY,)

ANSWERED = "fallback fallback completed"
CONTINUED = "fallback continuation completed"
PREFIX_SKIPPED = "fallback skip_prefix completed"
BROKE = f"primary first {BROKEN}"
TOO_LONG = "This model's maximum context length is 8192 tokens; your messages have 9120"
UNSAFE = "The prompt was blocked by our safety system"


@dataclass(frozen=True)
class ExpectedError:
    """An error: its reason, a part of its message, and its delay in seconds; `delivered` is the text before it."""

    reason: str
    message: str = ""
    delivered: tuple[str, ...] = ()
    retry_after: str | None = None


@dataclass(frozen=True)
class ExpectedAnswer:
    """A complete answer: the text of each choice, and the finish reason."""

    texts: tuple[str, ...] = (TEXT,)
    finish: str = "stop"


@dataclass(frozen=True)
class Case:
    """One row. `options` belong to the model, `fields` to the request; `delay` is that of a retry in seconds."""

    primary: Sequence[Script]
    tried: Sequence[str]
    expected: ExpectedAnswer | ExpectedError = ExpectedAnswer()
    modes: Sequence[str] = BOTH
    fallback: Sequence[Script] | None = (continue_prefill,)
    other: Sequence[Script] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    is_listening: bool = True
    delay: float = 0.0


def retried(reason: str) -> tuple[str, ...]:
    """Returns the attempts at a target that fails and is retried twice."""
    return (f"primary first {reason}", *[f"primary retry {reason}"] * 2)


def not_retried(reason: str) -> tuple[str, ...]:
    """Returns the attempt at a target that is not retried."""
    return (f"primary first {reason}",)


def reject_for_two_seconds(request: Received) -> Answer:
    """Rejects as rate limited, with a time as `Retry-After`."""
    return reject(429, Retry_After=format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True))(request)


def cut_stream(**more: Any) -> Case:
    """Returns a case with a stream that is cut after 40 of 60 tokens."""
    defaults = {"primary": [break_off(Cut())], "tried": (BROKE, CONTINUED), "modes": ONLY_STREAMED}
    return Case(**(defaults | more))


def cut_unary(**more: Any) -> Case:
    """Returns a case with a unary call that is requested as a stream, which is cut after 40 of 60 tokens."""
    defaults = {"primary": [break_off(Cut())], "tried": (BROKE, ANSWERED), "modes": ONLY_UNARY}
    return Case(**(defaults | more))


BAD_GATEWAY = {"code": 502, "message": "Provider returned error"}
BROKEN_OFF = ExpectedError(BROKEN, "broke off", (HALF,))
BUSY_FOR_A_SECOND = reject(429, Retry_After="1")
CONTEXT_EXCEEDED = reject(400, TOO_LONG, "context_length_exceeded")
TWICE_BUSY = (f"primary first {BUSY}", f"primary retry {BUSY}")
UNARY_UPSTREAM = {"whole_answers": "whole"}
PREFILL_REJECTED = (BROKE, f"fallback continuation {REJECTED}")

OVERFLOWS = {
    "vLLM": (400, "The decoder prompt (length 9001) is longer than the maximum model length of 4096."),
    "xAI": (400, "This model's maximum prompt length is 131072 but the request contains 136973 tokens."),
    "TGI": (422, "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 2048. Given: 1244 and 1000"),
}
OPERATORS = (
    "Incorrect API key provided: xa***in. You can obtain an API key from https://console.x.ai.",
    "User location is not supported for the API use.",
    "The model `mixtral-8x7b-32768` has been decommissioned and is no longer supported.",
)
UNLISTED = (307, 409, 410, 418, 421, 424, 425, 444, 451, 499, 501)
