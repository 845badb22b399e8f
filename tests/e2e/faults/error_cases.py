"""Rows of the table of failures: the primary is unreachable, slow, or answers with an error."""

from tests.e2e.faults.cases import (
    ANSWERED,
    BUSY,
    BUSY_FOR_A_SECOND,
    CONTEXT,
    CONTEXT_EXCEEDED,
    DOWN,
    ONLY_STREAMED,
    OPERATORS,
    OVERFLOWS,
    POLICY,
    QUOTA,
    REJECTED,
    SLOW,
    TOO_LONG,
    TWICE_BUSY,
    UNLISTED,
    UNSAFE,
    Case,
    ExpectedError,
    not_retried,
    reject_for_two_seconds,
    retried,
)
from tests.e2e.faults.scripts import (
    CLOSES,
    RESETS,
    SILENT,
    SILENT_BEHIND_HEADERS,
    answer_text,
    late,
    reject,
)
from tests.upstream import Delay

ERRORS: dict[str, Case] = {
    # The primary is unreachable or fails.
    "resets before headers": Case([RESETS], (*retried(DOWN), ANSWERED)),
    "closes before headers": Case([CLOSES], (*retried(DOWN), ANSWERED)),
    "refuses connections": Case([], (*retried(DOWN), ANSWERED), is_listening=False),
    "refuses connections, alone": Case([], retried(DOWN), ExpectedError(DOWN), fallback=None, is_listening=False),
    "500 once": Case([reject(500), answer_text()], (f"primary first {DOWN}", "primary retry completed")),
    "503 permanently": Case([reject(503)], (*retried(DOWN), ANSWERED)),
    "503 permanently, alone": Case([reject(503)], retried(DOWN), ExpectedError(DOWN, "not available"), fallback=None),
    "502 everywhere": Case(
        [reject(502)],
        (*retried(DOWN), f"fallback fallback {DOWN}", *[f"fallback retry {DOWN}"] * 2),
        ExpectedError(DOWN),
        fallback=[reject(502)],
    ),
    "504 twice, two attempts": Case(
        [reject(504)], (f"primary first {DOWN}", ANSWERED), options={"retries": {"attempts": 2}}
    ),
    # The primary is slow.
    "accepts, then silence": Case([SILENT], (*not_retried(SLOW), ANSWERED)),
    "headers, then silence": Case([SILENT_BEHIND_HEADERS], (*not_retried(SLOW), ANSWERED)),
    "silence, alone": Case([SILENT], not_retried(SLOW), ExpectedError(SLOW, "in time"), ONLY_STREAMED, fallback=None),
    "too slow a first token": Case([late(Delay(30))], (*not_retried(SLOW), ANSWERED)),
    "a slow first token": Case([late(Delay(0.5))], ("primary first completed",)),
    # The primary is rate limited.
    "429 for a second, once": Case(
        [BUSY_FOR_A_SECOND, answer_text()], (f"primary first {BUSY}", "primary retry completed"), delay=1.0
    ),
    "429 until a time, once": Case(
        [reject_for_two_seconds, answer_text()], (f"primary first {BUSY}", "primary retry completed"), delay=0.9
    ),
    "429 for a second, permanently": Case([BUSY_FOR_A_SECOND], (*TWICE_BUSY, ANSWERED), delay=1.0),
    "429 for a second, alone": Case(
        [BUSY_FOR_A_SECOND], TWICE_BUSY, ExpectedError(BUSY, "too many", retry_after="1"), fallback=None
    ),
    "429 once": Case([reject(429), answer_text()], (f"primary first {BUSY}", "primary retry completed")),
    "429 permanently": Case([reject(429)], (*retried(BUSY), ANSWERED)),
    "429 for a minute": Case([reject(429, Retry_After="60")], (*not_retried(BUSY), ANSWERED)),
    "503 for a minute": Case([reject(503, Retry_After="60")], (*not_retried(DOWN), ANSWERED)),
    "429 for a minute, alone": Case(
        [reject(429, Retry_After="60")], not_retried(BUSY), ExpectedError(BUSY, retry_after="60"), fallback=None
    ),
    # The primary rejects the request or the key.
    "400 context": Case([CONTEXT_EXCEEDED], (*not_retried(CONTEXT), ANSWERED), other=[answer_text()]),
    "400 context, alone": Case(
        [CONTEXT_EXCEEDED],
        not_retried(CONTEXT),
        ExpectedError(CONTEXT, TOO_LONG),
        other=[answer_text()],
        fallback=None,
    ),
    "400 context, and the fallback is down": Case(
        [CONTEXT_EXCEEDED],
        (*not_retried(CONTEXT), f"fallback fallback {DOWN}", *[f"fallback retry {DOWN}"] * 2),
        ExpectedError(CONTEXT, TOO_LONG),
        fallback=[reject(503)],
    ),
    "400 policy": Case(
        [reject(400, UNSAFE, "content_filter")],
        not_retried(POLICY),
        ExpectedError(POLICY, UNSAFE),
        other=[answer_text()],
    ),
    "400 with a field": Case(
        [reject(400, "No such voice", param="audio")],
        not_retried(REJECTED),
        ExpectedError(REJECTED, "No such voice"),
        other=[answer_text()],
    ),
    "400 with a field that a default has set": Case(
        [reject(400, "`temperature` must be at most 1", param="temperature")],
        (*not_retried(DOWN), "other fallback completed"),
        other=[answer_text()],
        options={"defaults": {"temperature": 1.5}},
    ),
    "400 with a field that a default has set, alone": Case(
        [reject(400, "`temperature` must be at most 1", param="temperature")],
        not_retried(DOWN),
        ExpectedError(DOWN, "not available"),
        fallback=None,
        options={"defaults": {"temperature": 1.5}},
    ),
    "400 with a field that the request has set, whatever the default": Case(
        [reject(400, "`temperature` must be at most 1", param="temperature")],
        not_retried(REJECTED),
        ExpectedError(REJECTED, "`temperature` must be at most 1"),
        other=[answer_text()],
        options={"defaults": {"temperature": 1.5}},
        fields={"temperature": 1.2},
    ),
    "400 for an unknown reason": Case([reject(400, "No such voice")], (*not_retried(REJECTED), ANSWERED)),
    "400 for an unknown reason, alone": Case(
        [reject(400, "No such voice at http://10.0.0.5:8000/v1?key=abc")],
        not_retried(REJECTED),
        ExpectedError(REJECTED, "No such voice at …"),
        fallback=None,
    ),
    "500 that says it is too long": Case(
        [reject(500, "input is too large to process")], (*not_retried(CONTEXT), ANSWERED)
    ),
    **{
        f"400 context of {vendor}": Case(
            [reject(status, message)], (*not_retried(CONTEXT), ANSWERED), other=[answer_text()]
        )
        for vendor, (status, message) in OVERFLOWS.items()
    },
    # The operator or the provider is at fault.
    **{
        f"400 {message[:20]}": Case(
            [reject(400, message)], (*not_retried(DOWN), "other fallback completed"), other=[answer_text()]
        )
        for message in OPERATORS
    },
    "400 with the operator's key, alone": Case(
        [reject(400, OPERATORS[0])], not_retried(DOWN), ExpectedError(DOWN, "not available"), fallback=None
    ),
    "a tool call that it could not make": Case(
        [reject(400, "Failed to call a function.", "tool_use_failed")], (*not_retried(DOWN), ANSWERED)
    ),
    # The quota is exhausted.
    "429 quota": Case([reject(429, "No", "insufficient_quota")], (*not_retried(QUOTA), ANSWERED)),
    "429 quota, alone": Case(
        [reject(429, "Go to https://billing", "insufficient_quota")],
        not_retried(QUOTA),
        ExpectedError(QUOTA, "quota"),
        fallback=None,
    ),
    "402": Case(
        [reject(402, "Insufficient Balance")], (*not_retried(QUOTA), "other fallback completed"), other=[answer_text()]
    ),
    "400 credit": Case([reject(400, "Your credit balance is too low")], (*not_retried(QUOTA), ANSWERED)),
    # Statuses that are unrelated to the request.
    **{f"{status}": Case([reject(status)], (*not_retried(DOWN), ANSWERED)) for status in UNLISTED},
    **{f"{status} permanently": Case([reject(status)], (*retried(DOWN), ANSWERED)) for status in (520, 529)},
    "424, alone": Case(
        [reject(424, "sk-secret")], not_retried(DOWN), ExpectedError(DOWN, "not available"), fallback=None
    ),
    "413 of a rate limit": Case([reject(413, "No", "rate_limit_exceeded")], (*not_retried(BUSY), ANSWERED)),
    "413 of a rate limit, alone": Case(
        [reject(413, "Request too large for model", "rate_limit_exceeded")],
        not_retried(BUSY),
        ExpectedError(BUSY),
        fallback=None,
    ),
    "498": Case([reject(498, "Flex tier capacity exceeded", "capacity_exceeded")], (*not_retried(BUSY), ANSWERED)),
    "429 with a wait in its words": Case([reject(429, "Please try again in 20s")], (*not_retried(BUSY), ANSWERED)),
    "401": Case([reject(401)], (*not_retried(DOWN), ANSWERED)),
    "401, alone": Case(
        [reject(401, "sk-secret")], not_retried(DOWN), ExpectedError(DOWN, "not available"), fallback=None
    ),
    "403": Case([reject(403)], (*not_retried(DOWN), ANSWERED)),
    "404": Case([reject(404)], (*not_retried(DOWN), "other fallback completed"), other=[answer_text()]),
}
