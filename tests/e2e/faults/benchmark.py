"""The sixteen faults of a public benchmark of failover between model providers, rebuilt from its published results.

| fault | behavior of the provider | expected result |
|---|---|---|
| S01 | 429 with `Retry-After: 2`, then healthy | retried after 2 s, and not earlier |
| S02 | 429 without `Retry-After`, permanently | two retries with delays, then the fallback answers |
| S03 | 500 once, then healthy | retried |
| S04 | 503 permanently | two retries, then the fallback answers |
| S05 | TCP reset before the headers, once | retried |
| S06 | no response at all | one attempt; the fallback answers within 15 s |
| S07 | the first token after 20 s | the fallback answers within 15 s |
| S08 | the stream is cut after 40 of 60 tokens | a complete answer, continued at the fallback |
| S09 | the stream stalls after 20 tokens for 30 s, then closes | as S08 |
| S10 | a malformed chunk in the stream | a complete answer |
| S11 | the stream ends without `[DONE]` | a complete answer with its usage, without a delay |
| S12 | 400, the context is too long | one attempt; the fallback answers |
| S13 | 400, the content filter | one attempt, no fallback; the provider's reason |
| S14 | S08, and the fallback rejects prefill | a complete answer |
| S15 | 503 for 60 s, then healthy | every call is answered, and the primary is used again within 30 s |
| S16 | 503 permanently, with accounting | the answer names the model that gave it, with usage |

All run at default settings. S15 takes a minute in real time: `outage.py` runs it once in the background, and
tests/unit/routing/test_liveness_simulation.py many times in virtual time. In S09 the 30 s are 2, because only the close
matters. Without a fallback, S06 has a `total` of 2 s and S07 a delay of 2 s, because the call can only wait.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.faults.scripts import (
    BROKEN_JSON,
    CUT_IN_ITS_BODY,
    HALF,
    RESETS,
    SILENT,
    TEXT,
    TOKENS,
    Script,
    answer_text,
    break_off,
    continue_prefill,
    late,
    reject,
    reject_prefill,
)
from tests.upstream import DONE, USAGE, Answer, Cut, Delay, Received, Step, chunk

STALL = Delay(2)
WITHIN = 15.0
"""The maximum time in seconds until the first token if the primary is slow."""


@dataclass(frozen=True)
class ExpectedError:
    """An error: its reason, and the text that a stream delivers before it."""

    reason: str
    delivered: str = ""


@dataclass(frozen=True)
class Fault:
    """One row. With a fallback: the number of `requests` to primary and fallback, and the `expected` result.

    `alone` has the results without a fallback, unary and streaming, and the number of requests to the primary; it is
    None if the fault equals S08. `options` are those of the model without a fallback. `gap` is the minimum time in
    seconds between the first two requests.
    """

    title: str
    primary: Sequence[Script]
    requests: tuple[int, int]
    alone: tuple[str | ExpectedError, str | ExpectedError, int] | None
    expected: str | ExpectedError = TEXT
    fallback: Script = continue_prefill
    options: dict[str, Any] = field(default_factory=dict)
    slow_alone: Sequence[Script] = ()
    gap: float = 0.0


def _streams(script: Script, non_streaming: Script = CUT_IN_ITS_BODY) -> Script:
    """Runs the script for streams, and another for unary calls."""
    return lambda request: (script if request.json.get("stream") else non_streaming)(request)


def _malformed(request: Received) -> Answer:
    """Streams TEXT with an invalid JSON chunk after its tenth token."""
    rest: list[Step] = [chunk({"content": token}) for token in TOKENS[10:]]
    end: list[Step] = [chunk(finish="stop"), chunk(choices=[], usage=USAGE), DONE]
    return break_off(BROKEN_JSON, *rest, *end, text="".join(TOKENS[:10]))(request)


DOWN, BUSY, SLOW, BROKEN = "UPSTREAM_UNAVAILABLE", "UPSTREAM_RATE_LIMITED", "UPSTREAM_TIMEOUT", "STREAM_BROKEN"
CONTEXT, POLICY = "CONTEXT_LENGTH_EXCEEDED", "CONTENT_POLICY"
_TOO_LONG = reject(400, "This model's maximum context length is 8192 tokens.", "context_length_exceeded")
_UNSAFE = reject(400, "The prompt was blocked by our safety system", "content_policy_violation")
_CUT = _streams(break_off(Cut()))

FAULTS: dict[str, Fault] = {
    "S01": Fault(
        "429 with Retry-After", [reject(429, Retry_After="2"), answer_text()], (2, 0), (TEXT, TEXT, 2), gap=1.9
    ),
    "S02": Fault(
        "429 without Retry-After", [reject(429)], (3, 1), (ExpectedError(BUSY), ExpectedError(BUSY), 3), gap=0.15
    ),
    "S03": Fault("500 once", [reject(500), answer_text()], (2, 0), (TEXT, TEXT, 2)),
    "S04": Fault("503 permanently", [reject(503)], (3, 1), (ExpectedError(DOWN), ExpectedError(DOWN), 3), gap=0.15),
    "S05": Fault("reset before headers", [RESETS, answer_text()], (2, 0), (TEXT, TEXT, 2)),
    "S06": Fault(
        "no response",
        [SILENT],
        (1, 1),
        (ExpectedError(SLOW), ExpectedError(SLOW), 1),
        options={"timeouts": {"total": "2s"}},
    ),
    "S07": Fault("slow first token", [late(Delay(20))], (1, 1), (TEXT, TEXT, 1), slow_alone=[late(Delay(2))]),
    "S08": Fault("cut", [_CUT], (1, 1), (ExpectedError(DOWN), ExpectedError(BROKEN, HALF), 1)),
    "S09": Fault(
        "stall, then close",
        [_streams(break_off(STALL, Cut(), text="".join(TOKENS[:20])))],
        (1, 1),
        (ExpectedError(DOWN), ExpectedError(BROKEN, "".join(TOKENS[:20])), 1),
    ),
    "S10": Fault(
        "malformed chunk",
        [_streams(_malformed)],
        (1, 1),
        (ExpectedError(DOWN), ExpectedError(BROKEN, "".join(TOKENS[:10])), 1),
    ),
    "S11": Fault("no [DONE]", [answer_text(TEXT, chunk(choices=[], usage=USAGE))], (1, 0), (TEXT, TEXT, 1)),
    "S12": Fault("context too long", [_TOO_LONG], (1, 1), (ExpectedError(CONTEXT), ExpectedError(CONTEXT), 1)),
    "S13": Fault(
        "content filter",
        [_UNSAFE],
        (1, 0),
        (ExpectedError(POLICY), ExpectedError(POLICY), 1),
        expected=ExpectedError(POLICY),
    ),
    "S14": Fault("the fallback rejects prefill", [_CUT], (1, 2), None, fallback=reject_prefill(answer_text())),
    "S16": Fault("accounting", [reject(503)], (3, 1), None),
}
