"""The table: what the primary does, who is asked then, and what the caller gets.

`tried` is the receipt, and what the upstreams see: "target kind outcome", where a reason stands for a failure. The
targets are `primary` and `other` of the model that was asked, and `fallback`, the target of its fallback model.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from tests.e2e.faults.misbehaving import (
    BROKEN_JSON,
    CLOSES,
    CUT_IN_ITS_BODY,
    ERROR_EVENT,
    HALF,
    RESETS,
    SECOND,
    SILENT,
    SILENT_BEHIND_HEADERS,
    TAIL,
    TEXT,
    UNPARSABLE,
    Script,
    breaks,
    calls_a_tool,
    continues,
    echoes,
    ends_each_chunk,
    error_with_200,
    fails,
    finishes_one_of_two,
    late,
    refusal,
    refuses_then,
    says,
    says_streamed,
    says_whole,
    streams_not,
    trailing,
)
from tests.upstream import DONE, Answer, Cut, Delay, Received, Stall

DOWN, SLOW, BROKEN = "UPSTREAM_UNAVAILABLE", "UPSTREAM_TIMEOUT", "STREAM_BROKEN"
BUSY, CONTEXT, POLICY, REJECTED = (
    "UPSTREAM_RATE_LIMITED",
    "CONTEXT_LENGTH_EXCEEDED",
    "CONTENT_POLICY",
    "UPSTREAM_REJECTED",
)
QUOTA = "UPSTREAM_QUOTA_EXHAUSTED"
WHOLE, STREAMED = "whole", "streamed"
BOTH, ONLY_STREAMED, ONLY_WHOLE = (WHOLE, STREAMED), (STREAMED,), (WHOLE,)

ANSWERED = "fallback fallback completed"
CONTINUED = "fallback continuation completed"
SPLICED = "fallback skip_prefix completed"
BROKE = f"primary first {BROKEN}"
TOO_LONG = "This model's maximum context length is 8192 tokens; your messages have 9120"
UNSAFE = "The prompt was blocked by our safety system"


@dataclass(frozen=True)
class Refused:
    """The honest error: its reason, words that it has, the seconds to wait; `said` is what came before it."""

    reason: str
    words: str = ""
    said: tuple[str, ...] = ()
    retry_after: str | None = None


@dataclass(frozen=True)
class Got:
    """A whole answer: what each choice says, and why it ended."""

    texts: tuple[str, ...] = (TEXT,)
    finish: str = "stop"


@dataclass(frozen=True)
class Case:
    """One row. `options` are the model's, `asks` the request's. `waits` is how long a repetition waits, in seconds."""

    primary: Sequence[Script]
    tried: Sequence[str]
    gets: Got | Refused = Got()
    ways: Sequence[str] = BOTH
    fallback: Sequence[Script] | None = (continues,)
    other: Sequence[Script] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    asks: dict[str, Any] = field(default_factory=dict)
    is_listening: bool = True
    waits: float = 0.0


def thrice(reason: str) -> tuple[str, ...]:
    """What is tried at a target that may be asked twice more."""
    return (f"primary first {reason}", *[f"primary retry {reason}"] * 2)


def once(reason: str) -> tuple[str, ...]:
    """What is tried at a target that is not asked again."""
    return (f"primary first {reason}",)


def _in_two_seconds(request: Received) -> Answer:
    """Is busy, and says until when, by the clock."""
    return refusal(429, Retry_After=format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True))(request)


def _cut(**more: Any) -> Case:
    """A stream that is cut after 40 of 60 tokens."""
    known = {"primary": [breaks(Cut())], "tried": (BROKE, CONTINUED), "ways": ONLY_STREAMED}
    return Case(**(known | more))


def _whole(**more: Any) -> Case:
    """A whole answer, of which the target that is asked first gives 40 of 60 tokens as a stream."""
    known = {"primary": [breaks(Cut())], "tried": (BROKE, ANSWERED), "ways": ONLY_WHOLE}
    return Case(**(known | more))


_BAD_GATEWAY = {"code": 502, "message": "Provider returned error"}
BROKEN_OFF = Refused(BROKEN, "broke off", (HALF,))
_BUSY_FOR_A_SECOND = refusal(429, Retry_After="1")
_LONGER = refusal(400, TOO_LONG, "context_length_exceeded")
_TWICE_BUSY = (f"primary first {BUSY}", f"primary retry {BUSY}")
AS_IT_IS = {"whole_answers": "whole"}
_REFUSED_TO_CONTINUE = (BROKE, f"fallback continuation {REJECTED}")

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

CASES: dict[str, Case] = {
    # It cannot be reached, or fails.
    "resets before headers": Case([RESETS], (*thrice(DOWN), ANSWERED)),
    "closes before headers": Case([CLOSES], (*thrice(DOWN), ANSWERED)),
    "refuses connections": Case([], (*thrice(DOWN), ANSWERED), is_listening=False),
    "refuses connections, alone": Case([], thrice(DOWN), Refused(DOWN), fallback=None, is_listening=False),
    "500 once": Case([refusal(500), says()], (f"primary first {DOWN}", "primary retry completed")),
    "503 for ever": Case([refusal(503)], (*thrice(DOWN), ANSWERED)),
    "503 for ever, alone": Case([refusal(503)], thrice(DOWN), Refused(DOWN, "not available"), fallback=None),
    "502 everywhere": Case(
        [refusal(502)],
        (*thrice(DOWN), f"fallback fallback {DOWN}", *[f"fallback retry {DOWN}"] * 2),
        Refused(DOWN),
        fallback=[refusal(502)],
    ),
    "504 twice, two attempts": Case(
        [refusal(504)], (f"primary first {DOWN}", ANSWERED), options={"retries": {"attempts": 2}}
    ),
    # It is slow.
    "accepts, then silence": Case([SILENT], (*once(SLOW), ANSWERED)),
    "headers, then silence": Case([SILENT_BEHIND_HEADERS], (*once(SLOW), ANSWERED)),
    "silence, alone": Case([SILENT], once(SLOW), Refused(SLOW, "in time"), ONLY_STREAMED, fallback=None),
    "too slow a first token": Case([late(Delay(30))], (*once(SLOW), ANSWERED)),
    "a slow first token": Case([late(Delay(0.5))], ("primary first completed",)),
    # It is busy.
    "429 for a second, once": Case(
        [_BUSY_FOR_A_SECOND, says()], (f"primary first {BUSY}", "primary retry completed"), waits=1.0
    ),
    "429 until a time, once": Case(
        [_in_two_seconds, says()], (f"primary first {BUSY}", "primary retry completed"), waits=0.9
    ),
    "429 for a second, for ever": Case([_BUSY_FOR_A_SECOND], (*_TWICE_BUSY, ANSWERED), waits=1.0),
    "429 for a second, alone": Case(
        [_BUSY_FOR_A_SECOND], _TWICE_BUSY, Refused(BUSY, "too many", retry_after="1"), fallback=None
    ),
    "429 once": Case([refusal(429), says()], (f"primary first {BUSY}", "primary retry completed")),
    "429 for ever": Case([refusal(429)], (*thrice(BUSY), ANSWERED)),
    "429 for a minute": Case([refusal(429, Retry_After="60")], (*once(BUSY), ANSWERED)),
    "503 for a minute": Case([refusal(503, Retry_After="60")], (*once(DOWN), ANSWERED)),
    "429 for a minute, alone": Case(
        [refusal(429, Retry_After="60")], once(BUSY), Refused(BUSY, retry_after="60"), fallback=None
    ),
    # It does not want the request, or us.
    "400 context": Case([_LONGER], (*once(CONTEXT), ANSWERED), other=[says()]),
    "400 context, alone": Case([_LONGER], once(CONTEXT), Refused(CONTEXT, TOO_LONG), other=[says()], fallback=None),
    "400 context, and the fallback is down": Case(
        [_LONGER],
        (*once(CONTEXT), f"fallback fallback {DOWN}", *[f"fallback retry {DOWN}"] * 2),
        Refused(CONTEXT, TOO_LONG),
        fallback=[refusal(503)],
    ),
    "400 policy": Case([refusal(400, UNSAFE, "content_filter")], once(POLICY), Refused(POLICY, UNSAFE), other=[says()]),
    "400 with a field": Case(
        [refusal(400, "No such voice", param="audio")],
        once(REJECTED),
        Refused(REJECTED, "No such voice"),
        other=[says()],
    ),
    "400 with a field that a default has set": Case(
        [refusal(400, "`temperature` must be at most 1", param="temperature")],
        (*once(DOWN), "other fallback completed"),
        other=[says()],
        options={"defaults": {"temperature": 1.5}},
    ),
    "400 with a field that a default has set, alone": Case(
        [refusal(400, "`temperature` must be at most 1", param="temperature")],
        once(DOWN),
        Refused(DOWN, "not available"),
        fallback=None,
        options={"defaults": {"temperature": 1.5}},
    ),
    "400 with a field that the request has set, whatever the default": Case(
        [refusal(400, "`temperature` must be at most 1", param="temperature")],
        once(REJECTED),
        Refused(REJECTED, "`temperature` must be at most 1"),
        other=[says()],
        options={"defaults": {"temperature": 1.5}},
        asks={"temperature": 1.2},
    ),
    "400 for an unknown reason": Case([refusal(400, "No such voice")], (*once(REJECTED), ANSWERED)),
    "400 for an unknown reason, alone": Case(
        [refusal(400, "No such voice at http://10.0.0.5:8000/v1?key=abc")],
        once(REJECTED),
        Refused(REJECTED, "No such voice at …"),
        fallback=None,
    ),
    "500 that says it is too long": Case([refusal(500, "input is too large to process")], (*once(CONTEXT), ANSWERED)),
    **{
        f"400 context of {vendor}": Case([refusal(status, words)], (*once(CONTEXT), ANSWERED), other=[says()])
        for vendor, (status, words) in OVERFLOWS.items()
    },
    # Its operator or its provider is at fault.
    **{
        f"400 {words[:20]}": Case([refusal(400, words)], (*once(DOWN), "other fallback completed"), other=[says()])
        for words in OPERATORS
    },
    "400 with the operator's key, alone": Case(
        [refusal(400, OPERATORS[0])], once(DOWN), Refused(DOWN, "not available"), fallback=None
    ),
    "a tool call that it could not make": Case(
        [refusal(400, "Failed to call a function.", "tool_use_failed")], (*once(DOWN), ANSWERED)
    ),
    # Its quota is used up.
    "429 quota": Case([refusal(429, "No", "insufficient_quota")], (*once(QUOTA), ANSWERED)),
    "429 quota, alone": Case(
        [refusal(429, "Go to https://billing", "insufficient_quota")],
        once(QUOTA),
        Refused(QUOTA, "quota"),
        fallback=None,
    ),
    "402": Case([refusal(402, "Insufficient Balance")], (*once(QUOTA), "other fallback completed"), other=[says()]),
    "400 credit": Case([refusal(400, "Your credit balance is too low")], (*once(QUOTA), ANSWERED)),
    # Statuses that say nothing of the request.
    **{f"{status}": Case([refusal(status)], (*once(DOWN), ANSWERED)) for status in UNLISTED},
    **{f"{status} for ever": Case([refusal(status)], (*thrice(DOWN), ANSWERED)) for status in (520, 529)},
    "424, alone": Case([refusal(424, "sk-secret")], once(DOWN), Refused(DOWN, "not available"), fallback=None),
    "413 of a rate limit": Case([refusal(413, "No", "rate_limit_exceeded")], (*once(BUSY), ANSWERED)),
    "413 of a rate limit, alone": Case(
        [refusal(413, "Request too large for model", "rate_limit_exceeded")], once(BUSY), Refused(BUSY), fallback=None
    ),
    "498": Case([refusal(498, "Flex tier capacity exceeded", "capacity_exceeded")], (*once(BUSY), ANSWERED)),
    "429 with a wait in its words": Case([refusal(429, "Please try again in 20s")], (*once(BUSY), ANSWERED)),
    "401": Case([refusal(401)], (*once(DOWN), ANSWERED)),
    "401, alone": Case([refusal(401, "sk-secret")], once(DOWN), Refused(DOWN, "not available"), fallback=None),
    "403": Case([refusal(403)], (*once(DOWN), ANSWERED)),
    "404": Case([refusal(404)], (*once(DOWN), "other fallback completed"), other=[says()]),
    # Its whole answer is none.
    "cut in its body": Case([CUT_IN_ITS_BODY], (*once(DOWN), ANSWERED), ways=ONLY_WHOLE, options=AS_IT_IS),
    "unparsable": Case([UNPARSABLE], (*once(DOWN), ANSWERED), ways=ONLY_WHOLE, options=AS_IT_IS),
    "unparsable, alone": Case([UNPARSABLE], once(DOWN), Refused(DOWN), ONLY_WHOLE, fallback=None),
    # Its stream breaks off.
    "cut": _cut(ways=BOTH),
    "reset": _cut(ways=BOTH, primary=[breaks(TAIL, Cut(reset=True))]),
    "ended as if whole": _cut(ways=BOTH, primary=[breaks(b"")]),
    "stall": _cut(ways=BOTH, primary=[breaks(Stall())]),
    "malformed": _cut(ways=BOTH, primary=[breaks(BROKEN_JSON, Stall())]),
    "error event": _cut(ways=BOTH, primary=[breaks(ERROR_EVENT, Stall())]),
    "cut before its first token": _cut(ways=BOTH, primary=[breaks(Cut(), text="")], tried=(BROKE, ANSWERED)),
    "cut with spaces behind words": _cut(ways=BOTH, primary=[trailing]),
    "cut, alone": _cut(tried=(BROKE,), gets=BROKEN_OFF, fallback=None),
    "cut, and no continuation wanted": _cut(tried=(BROKE,), gets=BROKEN_OFF, options={"on_stream_failure": "fail"}),
    "cut, and no attempt left": _cut(ways=BOTH, tried=(BROKE,), gets=BROKEN_OFF, options={"retries": {"attempts": 1}}),
    "cut, and cut again": _cut(
        ways=BOTH,
        other=[breaks(Cut(), text=" t41 t42 t43")],
        tried=(BROKE, f"other continuation {BROKEN}", CONTINUED),
    ),
    "cut behind its end": _cut(
        ways=BOTH,
        primary=[says(HALF, Cut(), finish="length")],
        tried=("primary first completed",),
        gets=Got((HALF,), "length"),
    ),
    "malformed behind its end": _cut(
        ways=BOTH, primary=[says(TEXT, TAIL, BROKEN_JSON)], tried=("primary first completed",)
    ),
    "no [DONE]": _cut(ways=BOTH, primary=[says(TEXT, b"")], tried=("primary first completed",)),
    "no end but [DONE]": _cut(ways=BOTH, primary=[breaks(DONE, text=TEXT)], tried=("primary first completed",)),
    # The one that is to go on does so in its own way, or not.
    "the fallback repeats": _cut(ways=BOTH, fallback=[echoes]),
    "the fallback refuses to continue": _cut(fallback=[refuses_then(says())], tried=(*_REFUSED_TO_CONTINUE, SPLICED)),
    "the fallback has other words": _cut(
        fallback=[refuses_then(says("Well, as far as I know, there is no answer to this."))],
        tried=(*_REFUSED_TO_CONTINUE, "fallback skip_prefix prefix_mismatch"),
        gets=BROKEN_OFF,
    ),
    "the fallback says less": _cut(
        fallback=[refuses_then(says(TEXT[:20]))],
        tried=(*_REFUSED_TO_CONTINUE, "fallback skip_prefix prefix_mismatch"),
        gets=BROKEN_OFF,
    ),
    "the fallback is down": _cut(
        ways=BOTH,
        fallback=[refusal(503)],
        tried=(BROKE, f"fallback continuation {DOWN}", *[f"fallback retry {DOWN}"] * 2),
        gets=BROKEN_OFF,
    ),
    "the fallback does not count": _cut(ways=BOTH, fallback=[says(TEXT.removeprefix(HALF), usage=False)]),
    # It says that it has failed, or says nothing, with the status 200.
    "a failure as the finish reason": _cut(ways=BOTH, primary=[fails(_BAD_GATEWAY)]),
    "a failure as the finish reason, no more": _cut(ways=BOTH, primary=[fails()]),
    "an unknown finish reason": _cut(ways=BOTH, primary=[fails(reason="insufficient_system_resource")]),
    "a failure as the finish reason, alone": _cut(
        primary=[fails(_BAD_GATEWAY)], tried=(BROKE,), gets=BROKEN_OFF, fallback=None
    ),
    "a failure as the reason of a whole answer": Case([fails()], once(DOWN), Refused(DOWN), ONLY_WHOLE, fallback=None),
    "a context that is too long, in the choice": Case(
        [fails({"code": 400, "message": TOO_LONG}, text="")], (*once(CONTEXT), ANSWERED)
    ),
    "a context that is too long, in the choice, alone": Case(
        [fails({"code": 400, "message": TOO_LONG}, text="")], once(CONTEXT), Refused(CONTEXT, TOO_LONG), fallback=None
    ),
    "says nothing": Case([says("")], (BROKE, ANSWERED)),
    "says nothing, alone": Case([says("")], (BROKE,), Refused(BROKEN), ONLY_STREAMED, fallback=None),
    "a whole answer says nothing": Case([says("")], once(DOWN), Refused(DOWN), ONLY_WHOLE, fallback=None),
    "its role, and [DONE]": Case([breaks(DONE, text="")], (BROKE, ANSWERED)),
    "429 with the status 200": Case(
        [error_with_200(429), says()], (f"primary first {BUSY}", "primary retry completed")
    ),
    "429 with the status 200, alone": Case([error_with_200(429)], thrice(BUSY), Refused(BUSY), fallback=None),
    # Its stream has another shape.
    "a reason in every chunk": Case([ends_each_chunk(DONE)], ("primary first completed",)),
    "a reason in every chunk, and cut": _cut(ways=BOTH, primary=[ends_each_chunk(Cut(), text=HALF)]),
    "JSON for a stream": Case([says_whole], ("primary first completed",)),
    "a stream for a whole answer": Case([says_streamed], ("primary first completed",), fallback=None),
    # What is asked decides how it is gone on with.
    "two answers": _cut(asks={"n": 2}, tried=(BROKE, SPLICED), gets=Got((TEXT, SECOND))),
    "two answers, one of them whole": _cut(
        primary=[finishes_one_of_two], asks={"n": 2}, tried=(BROKE, SPLICED), gets=Got((TEXT, SECOND))
    ),
    "probabilities": _cut(ways=BOTH, asks={"logprobs": True}),
    "probabilities, repeated": _cut(ways=BOTH, asks={"logprobs": True}, fallback=[echoes]),
    "probabilities, spliced": _cut(
        asks={"logprobs": True}, fallback=[refuses_then(says())], tried=(*_REFUSED_TO_CONTINUE, SPLICED)
    ),
    "JSON": _cut(asks={"response_format": {"type": "json_object"}}, tried=(BROKE, SPLICED)),
    "a tool call": _cut(primary=[calls_a_tool], tried=(BROKE,), gets=Refused(BROKEN, "broke off")),
    # A whole answer that is asked for as a stream, and breaks off: it is begun anew where it cannot be continued.
    "whole, and no continuation wanted": _whole(options={"on_stream_failure": "fail"}),
    "whole, a tool call": _whole(primary=[calls_a_tool]),
    "whole, two answers": _whole(asks={"n": 2}, gets=Got((TEXT, SECOND))),
    "whole, JSON": _whole(asks={"response_format": {"type": "json_object"}}),
    "whole, and the fallback refuses to continue": _whole(
        fallback=[refuses_then(says("Other words."))],
        tried=(*_REFUSED_TO_CONTINUE, ANSWERED),
        gets=Got(("Other words.",)),
    ),
    "whole, and the fallback cannot stream": _whole(
        fallback=[streams_not],
        tried=(BROKE, f"fallback continuation {DOWN}", "fallback retry completed"),
    ),
    "whole, from one that cannot stream": _whole(
        primary=[streams_not], tried=(f"primary first {DOWN}", "primary retry completed")
    ),
    "whole, as the model says": _whole(primary=[says()], tried=("primary first completed",), options=AS_IT_IS),
}
