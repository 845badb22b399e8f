"""What upstreams do that misbehave, or behave: scripts for the scripted upstream. Each says TEXT, or a part of it.

A script that says something does so as it is asked: whole or streamed, `n` answers, with the probabilities of tokens.
"""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from tests.upstream import (
    DONE,
    USAGE,
    Answer,
    Cut,
    Delay,
    Events,
    Gate,
    Json,
    Raw,
    Received,
    Stall,
    Step,
    chunk,
    completion,
)

Script = Callable[[Received], Answer]

TOKENS = ["t01", *(f" t{number:02}" for number in range(2, 61))]
TEXT = "".join(TOKENS)
HALF = "".join(TOKENS[:40])
SECOND = TEXT.replace("t", "u")
"""What the second of several answers says."""
TAIL = Delay(0.3)
"""Long enough for all that was sent to be read: a TCP reset throws away what was not."""
BROKEN_JSON = 'data: {"choices": [{"index"\n\n'
ERROR_EVENT = {"error": {"message": "Out of memory", "type": "server_error", "code": 500}}


def prefill_text(request: Received) -> str:
    """Returns the beginning of the answer that the request gives; "" where it gives none."""
    last = request.json["messages"][-1]
    return str(last["content"]) if last["role"] == "assistant" else ""


def says(text: str = TEXT, *ends: Step, finish: str | None = "stop", usage: bool = True) -> Script:
    """Says the text. `ends` come in place of what makes a stream whole, behind `finish` where that is set."""
    end: list[Step] = [chunk(choices=[], usage=USAGE), DONE] if usage else [DONE]
    return lambda request: _said(request, text, list(ends) or end, finish)


def breaks(*ends: Step, text: str = HALF) -> Script:
    """Says the text, which is not all, and does then what `ends` say."""
    return says(text, *ends, finish=None)


def continues(request: Received) -> Answer:
    """Says what is missing of TEXT."""
    return says(TEXT.removeprefix(prefill_text(request)))(request)


def echoes(request: Received) -> Answer:
    """Repeats the beginning that it was given."""
    return says()(request)


def refuses_then(script: Script) -> Script:
    """Refuses to go on from the beginning of an answer; asked for a whole one it does as the script says."""
    words = "Cannot set `add_generation_prompt` to True when the last message is from the assistant"
    return lambda request: refusal(400, words)(request) if prefill_text(request) else script(request)


def streams_not(request: Received) -> Answer:
    """Gives whole answers only, and names the parameter at fault, as OpenAI does to accounts that are not verified."""
    if not request.json.get("stream"):
        return says()(request)
    words = "Your organization must be verified to stream this model."
    error = {"message": words, "type": "invalid_request_error", "param": "stream", "code": "unsupported_value"}
    return Json({"error": error}, status=400)


def refusal(
    status: int, message: str = "No", code: str | None = None, *, param: str | None = None, **headers: str
) -> Script:
    """Answers with an error, as OpenAI words it."""
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: Json({"error": error}, status=status, headers=named)


def raw(*pieces: Step) -> Script:
    """Does no more than what the pieces say."""
    return lambda _: Raw(pieces)


def late(wait: Delay | Gate) -> Script:
    """Says TEXT, but is silent at first: for so long, or until the gate is open."""
    return lambda request: _delayed(says()(request), wait)


def trailing(request: Received) -> Answer:
    """Says HALF, with the spaces at the ends of its tokens, and is cut."""
    return Events([chunk({"role": "assistant"}), *(chunk({"content": f"{word} "}) for word in HALF.split()), Cut()])


def calls_a_tool(request: Received) -> Answer:
    """Calls a tool, and is cut in the middle of its arguments."""
    first = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "find", "arguments": ""}}
    more = {"index": 0, "function": {"arguments": '{"place": "Rey'}}
    return Events([chunk({"role": "assistant", "tool_calls": [first]}), chunk({"tool_calls": [more]}), Cut()])


def fails(error: dict[str, Any] | None = None, reason: str = "error", text: str = HALF) -> Script:
    """Says the text, and that it ended for this reason, whole or streamed; `error` stands beside the reason."""
    more = {} if error is None else {"error": error}

    def scripted(request: Received) -> Answer:
        last = completion(text) if not request.json.get("stream") else chunk({"content": ""}, reason)
        last["choices"][0] |= {"finish_reason": reason, **more}
        return Events([*_deltas(request, text, 0), last, DONE]) if request.json.get("stream") else Json(last)

    return scripted


def ends_each_chunk(*ends: Step, text: str = TEXT) -> Script:
    """Says the text, each token with a finish reason, and does then what `ends` say."""

    def scripted(request: Received) -> Answer:
        if not request.json.get("stream"):
            return Json(completion(text))
        said = [chunk({"content": token}, "stop") for token in re.findall(r"\s?\S+", text)]
        return Events([*said, *ends])

    return scripted


def says_whole(request: Received) -> Answer:
    """Says TEXT as JSON, though a stream may be asked for, behind a header of 12 KB."""
    return Json(completion(TEXT), headers={"X-Trace": "x" * 12_000})


def says_streamed(request: Received) -> Answer:
    """Says TEXT as a stream, though a whole answer may be asked for."""
    return Events([*_deltas(request, TEXT, 0), chunk(finish="stop"), chunk(choices=[], usage=USAGE), DONE])


def error_with_200(code: Any, message: str = "No") -> Script:
    """Answers with an error in place of the answer, with the status 200."""
    return lambda _: Json({"error": {"message": message, "code": code}})


def finishes_one_of_two(request: Received) -> Answer:
    """Finishes its first answer, and is cut in the middle of the second."""
    return Events(
        [*_deltas(request, TEXT, 0), chunk(finish="stop"), *_deltas(request, HALF.replace("t", "u"), 1), Cut()]
    )


RESETS = raw(Cut(reset=True))
CLOSES = raw(Cut())
SILENT = raw(Stall())
SILENT_BEHIND_HEADERS: Script = lambda _: Events([Stall()])  # noqa: E731 - a script like the others
_HEAD = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
_BODY = json.dumps(completion(TEXT))
CUT_IN_ITS_BODY = raw(f"{_HEAD}{len(_BODY)}\r\n\r\n{_BODY[:200]}")
UNPARSABLE = raw(f"{_HEAD}200\r\n\r\n{_BODY[:200]}")


def _said(request: Received, text: str, ends: list[Step], finish: str | None) -> Answer:
    asked = request.json
    if not asked.get("stream"):
        return Json(completion(text))
    several = range(asked.get("n", 1))
    said = [step for index in several for step in _deltas(request, text.replace("t", "u") if index else text, index)]
    finished: list[Step] = [chunk(finish=finish, index=index) for index in several if finish]
    return Events([*said, *finished, *ends])


def _deltas(request: Received, text: str, index: int) -> list[Step]:
    """Returns a choice's role and its tokens."""
    made: list[dict[str, Any]] = [chunk({"role": "assistant", "content": ""}, index=index)]
    for token in re.findall(r"\s?\S+", text):
        made.append(chunk({"content": token}, index=index))
        if request.json.get("logprobs"):
            known = {"token": token, "logprob": -0.1, "bytes": list(token.encode()), "top_logprobs": []}
            made[-1]["choices"][0]["logprobs"] = {"content": [known]}
    return list(made)


def _delayed(answer: Answer, wait: Delay | Gate) -> Answer:
    if isinstance(answer, Json):
        return Json(answer.body, wait=wait)
    assert isinstance(answer, Events)
    return Events([wait, *answer.events])


def in_order(scripts: Sequence[Script], request: Received, place: int) -> Answer:
    """Does what the script of this place says; the last one is for all that come after."""
    return scripts[min(place, len(scripts) - 1)](request)
