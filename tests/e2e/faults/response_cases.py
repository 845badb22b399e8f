"""Rows of the table of failures: the response is unusable, breaks, or has another format."""

from tests.e2e.faults.cases import (
    ANSWERED,
    BAD_GATEWAY,
    BOTH,
    BROKE,
    BROKEN,
    BROKEN_OFF,
    BUSY,
    CONTEXT,
    CONTINUED,
    DOWN,
    ONLY_STREAMED,
    ONLY_UNARY,
    PREFILL_REJECTED,
    PREFIX_SKIPPED,
    TOO_LONG,
    UNARY_UPSTREAM,
    Case,
    ExpectedAnswer,
    ExpectedError,
    cut_stream,
    cut_unary,
    not_retried,
    retried,
)
from tests.e2e.faults.scripts import (
    BROKEN_JSON,
    CUT_IN_ITS_BODY,
    ERROR_EVENT,
    HALF,
    SECOND,
    TAIL,
    TEXT,
    UNPARSABLE,
    always_json,
    always_stream,
    answer_text,
    break_off,
    cut_tool_call,
    error_with_200,
    fail_with_reason,
    finish_each_chunk,
    finish_one_choice,
    reject,
    reject_prefill,
    reject_streaming,
    repeat_prefill,
    trailing_spaces,
)
from tests.upstream import DONE, Cut, Stall

RESPONSES: dict[str, Case] = {
    # The unary response is unusable.
    "cut in its body": Case(
        [CUT_IN_ITS_BODY], (*not_retried(DOWN), ANSWERED), modes=ONLY_UNARY, options=UNARY_UPSTREAM
    ),
    "unparsable": Case([UNPARSABLE], (*not_retried(DOWN), ANSWERED), modes=ONLY_UNARY, options=UNARY_UPSTREAM),
    "unparsable, alone": Case([UNPARSABLE], not_retried(DOWN), ExpectedError(DOWN), ONLY_UNARY, fallback=None),
    # The stream breaks.
    "cut": cut_stream(modes=BOTH),
    "reset": cut_stream(modes=BOTH, primary=[break_off(TAIL, Cut(reset=True))]),
    "ended as if complete": cut_stream(modes=BOTH, primary=[break_off(b"")]),
    "stall": cut_stream(modes=BOTH, primary=[break_off(Stall())]),
    "malformed": cut_stream(modes=BOTH, primary=[break_off(BROKEN_JSON, Stall())]),
    "error event": cut_stream(modes=BOTH, primary=[break_off(ERROR_EVENT, Stall())]),
    "cut before its first token": cut_stream(modes=BOTH, primary=[break_off(Cut(), text="")], tried=(BROKE, ANSWERED)),
    "cut with spaces behind words": cut_stream(modes=BOTH, primary=[trailing_spaces]),
    "cut, alone": cut_stream(tried=(BROKE,), expected=BROKEN_OFF, fallback=None),
    "cut, and no continuation wanted": cut_stream(
        tried=(BROKE,), expected=BROKEN_OFF, options={"on_stream_failure": "fail"}
    ),
    "cut, and no attempt left": cut_stream(
        modes=BOTH, tried=(BROKE,), expected=BROKEN_OFF, options={"retries": {"attempts": 1}}
    ),
    "cut, and cut again": cut_stream(
        modes=BOTH,
        other=[break_off(Cut(), text=" t41 t42 t43")],
        tried=(BROKE, f"other continuation {BROKEN}", CONTINUED),
    ),
    "cut behind its end": cut_stream(
        modes=BOTH,
        primary=[answer_text(HALF, Cut(), finish="length")],
        tried=("primary first completed",),
        expected=ExpectedAnswer((HALF,), "length"),
    ),
    "malformed behind its end": cut_stream(
        modes=BOTH, primary=[answer_text(TEXT, TAIL, BROKEN_JSON)], tried=("primary first completed",)
    ),
    "no [DONE]": cut_stream(modes=BOTH, primary=[answer_text(TEXT, b"")], tried=("primary first completed",)),
    "no end but [DONE]": cut_stream(
        modes=BOTH, primary=[break_off(DONE, text=TEXT)], tried=("primary first completed",)
    ),
    # The fallback continues in an unusual way, or not at all.
    "the fallback repeats": cut_stream(modes=BOTH, fallback=[repeat_prefill]),
    "the fallback refuses to continue": cut_stream(
        fallback=[reject_prefill(answer_text())], tried=(*PREFILL_REJECTED, PREFIX_SKIPPED)
    ),
    "the fallback has other words": cut_stream(
        fallback=[reject_prefill(answer_text("Well, as far as I know, there is no answer to this."))],
        tried=(*PREFILL_REJECTED, "fallback skip_prefix prefix_mismatch"),
        expected=BROKEN_OFF,
    ),
    "the fallback says less": cut_stream(
        fallback=[reject_prefill(answer_text(TEXT[:20]))],
        tried=(*PREFILL_REJECTED, "fallback skip_prefix prefix_mismatch"),
        expected=BROKEN_OFF,
    ),
    "the fallback is down": cut_stream(
        modes=BOTH,
        fallback=[reject(503)],
        tried=(BROKE, f"fallback continuation {DOWN}", *[f"fallback retry {DOWN}"] * 2),
        expected=BROKEN_OFF,
    ),
    "the fallback does not count": cut_stream(modes=BOTH, fallback=[answer_text(TEXT.removeprefix(HALF), usage=False)]),
    # The response with status 200 contains a failure or no output.
    "a failure as the finish reason": cut_stream(modes=BOTH, primary=[fail_with_reason(BAD_GATEWAY)]),
    "a failure as the finish reason, no more": cut_stream(modes=BOTH, primary=[fail_with_reason()]),
    "an unknown finish reason": cut_stream(
        modes=BOTH, primary=[fail_with_reason(reason="insufficient_system_resource")]
    ),
    "a failure as the finish reason, alone": cut_stream(
        primary=[fail_with_reason(BAD_GATEWAY)], tried=(BROKE,), expected=BROKEN_OFF, fallback=None
    ),
    "a failure as the reason of a whole answer": Case(
        [fail_with_reason()], not_retried(DOWN), ExpectedError(DOWN), ONLY_UNARY, fallback=None
    ),
    "a context that is too long, in the choice": Case(
        [fail_with_reason({"code": 400, "message": TOO_LONG}, text="")], (*not_retried(CONTEXT), ANSWERED)
    ),
    "a context that is too long, in the choice, alone": Case(
        [fail_with_reason({"code": 400, "message": TOO_LONG}, text="")],
        not_retried(CONTEXT),
        ExpectedError(CONTEXT, TOO_LONG),
        fallback=None,
    ),
    "says nothing": Case([answer_text("")], (BROKE, ANSWERED)),
    "says nothing, alone": Case([answer_text("")], (BROKE,), ExpectedError(BROKEN), ONLY_STREAMED, fallback=None),
    "a whole answer says nothing": Case(
        [answer_text("")], not_retried(DOWN), ExpectedError(DOWN), ONLY_UNARY, fallback=None
    ),
    "its role, and [DONE]": Case([break_off(DONE, text="")], (BROKE, ANSWERED)),
    "429 with the status 200": Case(
        [error_with_200(429), answer_text()], (f"primary first {BUSY}", "primary retry completed")
    ),
    "429 with the status 200, alone": Case([error_with_200(429)], retried(BUSY), ExpectedError(BUSY), fallback=None),
    # The response has another format.
    "a reason in every chunk": Case([finish_each_chunk(DONE)], ("primary first completed",)),
    "a reason in every chunk, and cut": cut_stream(modes=BOTH, primary=[finish_each_chunk(Cut(), text=HALF)]),
    "JSON for a stream": Case([always_json], ("primary first completed",)),
    "a stream for a whole answer": Case([always_stream], ("primary first completed",), fallback=None),
    # The request decides how the stream is continued.
    "two answers": cut_stream(fields={"n": 2}, tried=(BROKE, PREFIX_SKIPPED), expected=ExpectedAnswer((TEXT, SECOND))),
    "two answers, one of them whole": cut_stream(
        primary=[finish_one_choice],
        fields={"n": 2},
        tried=(BROKE, PREFIX_SKIPPED),
        expected=ExpectedAnswer((TEXT, SECOND)),
    ),
    "probabilities": cut_stream(modes=BOTH, fields={"logprobs": True}),
    "probabilities, repeated": cut_stream(modes=BOTH, fields={"logprobs": True}, fallback=[repeat_prefill]),
    "probabilities, spliced": cut_stream(
        fields={"logprobs": True}, fallback=[reject_prefill(answer_text())], tried=(*PREFILL_REJECTED, PREFIX_SKIPPED)
    ),
    "JSON": cut_stream(fields={"response_format": {"type": "json_object"}}, tried=(BROKE, PREFIX_SKIPPED)),
    "a tool call": cut_stream(primary=[cut_tool_call], tried=(BROKE,), expected=ExpectedError(BROKEN, "broke off")),
    # A unary call that is requested as a stream, which breaks: it restarts if it cannot be continued.
    "unary, and no continuation wanted": cut_unary(options={"on_stream_failure": "fail"}),
    "unary, a tool call": cut_unary(primary=[cut_tool_call]),
    "unary, two answers": cut_unary(fields={"n": 2}, expected=ExpectedAnswer((TEXT, SECOND))),
    "unary, JSON": cut_unary(fields={"response_format": {"type": "json_object"}}),
    "unary, and the fallback refuses to continue": cut_unary(
        fallback=[reject_prefill(answer_text("Other words."))],
        tried=(*PREFILL_REJECTED, ANSWERED),
        expected=ExpectedAnswer(("Other words.",)),
    ),
    "unary, and the fallback cannot stream": cut_unary(
        fallback=[reject_streaming],
        tried=(BROKE, f"fallback continuation {DOWN}", "fallback retry completed"),
    ),
    "unary, from one that cannot stream": cut_unary(
        primary=[reject_streaming], tried=(f"primary first {DOWN}", "primary retry completed")
    ),
    "unary, as the model says": cut_unary(
        primary=[answer_text()], tried=("primary first completed",), options=UNARY_UPSTREAM
    ),
}
