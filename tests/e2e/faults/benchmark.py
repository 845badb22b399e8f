"""The sixteen faults of a public benchmark of failover between model providers, rebuilt from its published results.

| fault | what the provider does | what is right |
|---|---|---|
| S01 | 429 with `Retry-After: 2`, then healthy | asked again after 2 s, and not before |
| S02 | 429 without `Retry-After`, for ever | asked again twice with pauses, then the fallback answers |
| S03 | 500 once, then healthy | asked again |
| S04 | 503 for ever | asked again twice, then the fallback answers |
| S05 | TCP reset before the headers, once | asked again |
| S06 | no response at all | asked once; the fallback answers within 15 s |
| S07 | the first token after 20 s | the fallback answers within 15 s |
| S08 | the stream is cut after 40 of 60 tokens | the whole answer, continued at the fallback |
| S09 | the stream stalls after 20 tokens for 30 s, then closes | as S08 |
| S10 | a malformed chunk in the stream | the whole answer |
| S11 | the stream ends without `[DONE]` | the whole answer with its usage, at once |
| S12 | 400, the context is too long | asked once; the fallback answers |
| S13 | 400, the content filter | asked once, no fallback; the provider's reason |
| S14 | S08, and the fallback rejects prefill | the whole answer |
| S15 | 503 for 60 s, then healthy | every call is answered, and the primary is used again within 30 s |
| S16 | 503 for ever, and who is billed | the answer names the model that gave it, with usage |

All run at default settings. S15 lasts for a minute in real time: `outage.py` lives through it in the background, and
tests/unit/routing/test_liveness_simulation.py through many of them in virtual time. In S09 the 30 s are 2, as it is
the close that counts; without a fallback, S06 has 2 s for `total` and S07 comes after 2 s, as there is nothing but
the wait.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.faults.misbehaving import (
    BROKEN_JSON,
    CUT_IN_ITS_BODY,
    HALF,
    RESETS,
    SILENT,
    TEXT,
    TOKENS,
    Script,
    breaks,
    continues,
    late,
    refusal,
    refuses_then,
    says,
)
from tests.upstream import DONE, USAGE, Answer, Cut, Delay, Received, Step, chunk

STALL = Delay(2)
WITHIN = 15.0
"""Seconds within which a first token must come that the primary is slow to give."""


@dataclass(frozen=True)
class Refused:
    """An error: its reason, and what a stream said before."""

    reason: str
    said: str = ""


@dataclass(frozen=True)
class Fault:
    """One row. Of a call with a fallback: how often the `primary` and the `fallback` are `asked`, and what comes.

    `alone` is what comes without a fallback, whole and streamed, and how often the primary is asked; None where that is
    no other fault than S08. `options` are those of the model without a fallback. `gap` is the least time between the
    first two requests.
    """

    title: str
    primary: Sequence[Script]
    asked: tuple[int, int]
    alone: tuple[str | Refused, str | Refused, int] | None
    gets: str | Refused = TEXT
    fallback: Script = continues
    options: dict[str, Any] = field(default_factory=dict)
    slow_alone: Sequence[Script] = ()
    gap: float = 0.0


def _streams(script: Script, non_streaming: Script = CUT_IN_ITS_BODY) -> Script:
    """Does something to streams, and the like of it to whole answers."""
    return lambda request: (script if request.json.get("stream") else non_streaming)(request)


def _malformed(request: Received) -> Answer:
    """Says TEXT, with a chunk after its tenth token that is no JSON."""
    rest: list[Step] = [chunk({"content": token}) for token in TOKENS[10:]]
    end: list[Step] = [chunk(finish="stop"), chunk(choices=[], usage=USAGE), DONE]
    return breaks(BROKEN_JSON, *rest, *end, text="".join(TOKENS[:10]))(request)


DOWN, BUSY, SLOW, BROKEN = "UPSTREAM_UNAVAILABLE", "UPSTREAM_RATE_LIMITED", "UPSTREAM_TIMEOUT", "STREAM_BROKEN"
CONTEXT, POLICY = "CONTEXT_LENGTH_EXCEEDED", "CONTENT_POLICY"
_TOO_LONG = refusal(400, "This model's maximum context length is 8192 tokens.", "context_length_exceeded")
_UNSAFE = refusal(400, "The prompt was blocked by our safety system", "content_policy_violation")
_CUT = _streams(breaks(Cut()))

FAULTS: dict[str, Fault] = {
    "S01": Fault("429 with Retry-After", [refusal(429, Retry_After="2"), says()], (2, 0), (TEXT, TEXT, 2), gap=1.9),
    "S02": Fault("429 without Retry-After", [refusal(429)], (3, 1), (Refused(BUSY), Refused(BUSY), 3), gap=0.15),
    "S03": Fault("500 once", [refusal(500), says()], (2, 0), (TEXT, TEXT, 2)),
    "S04": Fault("503 for ever", [refusal(503)], (3, 1), (Refused(DOWN), Refused(DOWN), 3), gap=0.15),
    "S05": Fault("reset before headers", [RESETS, says()], (2, 0), (TEXT, TEXT, 2)),
    "S06": Fault(
        "no response", [SILENT], (1, 1), (Refused(SLOW), Refused(SLOW), 1), options={"timeouts": {"total": "2s"}}
    ),
    "S07": Fault("slow first token", [late(Delay(20))], (1, 1), (TEXT, TEXT, 1), slow_alone=[late(Delay(2))]),
    "S08": Fault("cut", [_CUT], (1, 1), (Refused(DOWN), Refused(BROKEN, HALF), 1)),
    "S09": Fault(
        "stall, then close",
        [_streams(breaks(STALL, Cut(), text="".join(TOKENS[:20])))],
        (1, 1),
        (Refused(DOWN), Refused(BROKEN, "".join(TOKENS[:20])), 1),
    ),
    "S10": Fault(
        "malformed chunk",
        [_streams(_malformed)],
        (1, 1),
        (Refused(DOWN), Refused(BROKEN, "".join(TOKENS[:10])), 1),
    ),
    "S11": Fault("no [DONE]", [says(TEXT, chunk(choices=[], usage=USAGE))], (1, 0), (TEXT, TEXT, 1)),
    "S12": Fault("context too long", [_TOO_LONG], (1, 1), (Refused(CONTEXT), Refused(CONTEXT), 1)),
    "S13": Fault("content filter", [_UNSAFE], (1, 0), (Refused(POLICY), Refused(POLICY), 1), gets=Refused(POLICY)),
    "S14": Fault("the fallback rejects prefill", [_CUT], (1, 2), None, fallback=refuses_then(says())),
    "S16": Fault("accounting", [refusal(503)], (3, 1), None),
}
