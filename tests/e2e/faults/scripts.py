"""Scripts of faulty and healthy upstreams for the scripted upstream. Each answers with TEXT or a part of it.

A script answers in the requested form: unary or streaming, `n` choices, with logprobs.
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
"""The text of the second choice."""
TAIL = Delay(0.3)
"""Long enough for the client to read all data: a TCP reset discards unread data."""
BROKEN_JSON = 'data: {"choices": [{"index"\n\n'
ERROR_EVENT = {"error": {"message": "Out of memory", "type": "server_error", "code": 500}}


def prefill_text(request: Received) -> str:
    """Returns the prefill of a request, "" without one."""
    last = request.json["messages"][-1]
    return str(last["content"]) if last["role"] == "assistant" else ""


def answer_text(text: str = TEXT, *ends: Step, finish: str | None = "stop", usage: bool = True) -> Script:
    """Answers with the text. `ends` replace the regular end of a stream after `finish`, if that is set."""
    end: list[Step] = [chunk(choices=[], usage=USAGE), DONE] if usage else [DONE]
    return lambda request: _answer(request, text, list(ends) or end, finish)


def break_off(*ends: Step, text: str = HALF) -> Script:
    """Streams the text without a finish reason, then `ends`."""
    return answer_text(text, *ends, finish=None)


def continue_prefill(request: Received) -> Answer:
    """Answers with the rest of TEXT after the prefill."""
    return answer_text(TEXT.removeprefix(prefill_text(request)))(request)


def repeat_prefill(request: Received) -> Answer:
    """Answers with TEXT including the prefill."""
    return answer_text()(request)


def reject_prefill(script: Script) -> Script:
    """Rejects a request with prefill; otherwise runs the script."""
    message = "Cannot set `add_generation_prompt` to True when the last message is from the assistant"
    return lambda request: reject(400, message)(request) if prefill_text(request) else script(request)


def reject_streaming(request: Received) -> Answer:
    """Answers unary requests only, and names the parameter, as OpenAI does for accounts that are not verified."""
    if not request.json.get("stream"):
        return answer_text()(request)
    message = "Your organization must be verified to stream this model."
    error = {"message": message, "type": "invalid_request_error", "param": "stream", "code": "unsupported_value"}
    return Json({"error": error}, status=400)


def reject(
    status: int, message: str = "No", code: str | None = None, *, param: str | None = None, **headers: str
) -> Script:
    """Rejects with an error in OpenAI's format."""
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: Json({"error": error}, status=status, headers=named)


def raw(*pieces: Step) -> Script:
    """Sends only these pieces."""
    return lambda _: Raw(pieces)


def late(wait: Delay | Gate) -> Script:
    """Answers with TEXT after a delay, or after the gate is opened."""
    return lambda request: _delayed(answer_text()(request), wait)


def trailing_spaces(request: Received) -> Answer:
    """Streams HALF with spaces at the ends of its tokens, then closes the connection."""
    return Events([chunk({"role": "assistant"}), *(chunk({"content": f"{word} "}) for word in HALF.split()), Cut()])


def cut_tool_call(request: Received) -> Answer:
    """Streams a tool call, and closes the connection within its arguments."""
    first = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "find", "arguments": ""}}
    more = {"index": 0, "function": {"arguments": '{"place": "Rey'}}
    return Events([chunk({"role": "assistant", "tool_calls": [first]}), chunk({"tool_calls": [more]}), Cut()])


def fail_with_reason(error: dict[str, Any] | None = None, reason: str = "error", text: str = HALF) -> Script:
    """Answers with the text and this finish reason, unary or streaming; `error` is a field beside the reason."""
    more = {} if error is None else {"error": error}

    def scripted(request: Received) -> Answer:
        last = completion(text) if not request.json.get("stream") else chunk({"content": ""}, reason)
        last["choices"][0] |= {"finish_reason": reason, **more}
        return Events([*_deltas(request, text, 0), last, DONE]) if request.json.get("stream") else Json(last)

    return scripted


def finish_each_chunk(*ends: Step, text: str = TEXT) -> Script:
    """Streams the text with a finish reason in each chunk, then `ends`."""

    def scripted(request: Received) -> Answer:
        if not request.json.get("stream"):
            return Json(completion(text))
        pieces = [chunk({"content": token}, "stop") for token in re.findall(r"\s?\S+", text)]
        return Events([*pieces, *ends])

    return scripted


def always_json(request: Received) -> Answer:
    """Answers with TEXT as JSON, even to a streaming request, with a header of 12 KB."""
    return Json(completion(TEXT), headers={"X-Trace": "x" * 12_000})


def always_stream(request: Received) -> Answer:
    """Answers with TEXT as a stream, even to a unary request."""
    return Events([*_deltas(request, TEXT, 0), chunk(finish="stop"), chunk(choices=[], usage=USAGE), DONE])


def error_with_200(code: Any, message: str = "No") -> Script:
    """Answers with an error body and status 200."""
    return lambda _: Json({"error": {"message": message, "code": code}})


def finish_one_choice(request: Received) -> Answer:
    """Finishes the first choice, and closes the connection within the second."""
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


def _answer(request: Received, text: str, ends: list[Step], finish: str | None) -> Answer:
    body = request.json
    if not body.get("stream"):
        return Json(completion(text))
    several = range(body.get("n", 1))
    pieces = [step for index in several for step in _deltas(request, text.replace("t", "u") if index else text, index)]
    finished: list[Step] = [chunk(finish=finish, index=index) for index in several if finish]
    return Events([*pieces, *finished, *ends])


def _deltas(request: Received, text: str, index: int) -> list[Step]:
    """Returns the role and the tokens of a choice."""
    made: list[dict[str, Any]] = [chunk({"role": "assistant", "content": ""}, index=index)]
    for token in re.findall(r"\s?\S+", text):
        made.append(chunk({"content": token}, index=index))
        if request.json.get("logprobs"):
            logprob = {"token": token, "logprob": -0.1, "bytes": list(token.encode()), "top_logprobs": []}
            made[-1]["choices"][0]["logprobs"] = {"content": [logprob]}
    return list(made)


def _delayed(answer: Answer, wait: Delay | Gate) -> Answer:
    if isinstance(answer, Json):
        return Json(answer.body, wait=wait)
    assert isinstance(answer, Events)
    return Events([wait, *answer.events])


def script_at(scripts: Sequence[Script], request: Received, index: int) -> Answer:
    """Runs the script at this index, or the last one."""
    return scripts[min(index, len(scripts) - 1)](request)
