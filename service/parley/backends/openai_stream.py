"""From the events of an OpenAI stream to chunks: what arrives together becomes one chunk.

Pieces of text are concatenated, pieces of a tool call are joined by their index; in a chunk a choice's `finish_reason`
stands after its delta, and the usage after all choices, as they came.
"""

from collections.abc import Mapping
from typing import Any

import orjson
from google.protobuf.struct_pb2 import Struct

from parley.backends import openai_answer as answer
from parley.backends.echo import Echo, new_tokens
from parley.backends.failures import SHAPE_ERRORS, ErrorInBody, Malformed
from parley.backends.sse import EventReader
from parley.core.answers import join_audio
from parley.v1.chat_completions_pb2 import ChatCompletionChunk
from parley.v1.message_pb2 import (
    ChunkChoice,
    CustomCallDelta,
    Delta,
    FunctionCallDelta,
    Logprobs,
    ToolCallDelta,
    Usage,
)

_DONE = b"[DONE]"


class StreamReader:
    """Reads the stream of one answer with `n` choices, of which at most `top` rivals of each token are kept.

    `said` is what the caller has already got of the answer, where it goes on from there; it is not delivered again.
    `started` tells that the first token has come, `ended` that there is nothing more to read: after `[DONE]`, at the
    end of the bytes, or after an error. That is kept in `failure`, so that what came before it can still be delivered.
    """

    def __init__(self, n: int, top: int, said: str = "") -> None:
        self.started = False
        self.ended = False
        self.failure: Malformed | ErrorInBody | None = None
        self._reader = EventReader()
        self._done = False
        self._lost = False  # something that came cannot be delivered
        self._n = n
        self._top = top
        self._said = said
        self._choices: dict[int, _Choice] = {}
        self._touched: dict[int, _Choice] = {}
        self._usage: Usage | None = None
        self._usage_due = False
        self._tags: dict[str, Any] = {}
        self._tags_due = False
        self._moderation: Struct | None = None

    @property
    def whole(self) -> bool:
        """Tells whether every choice was finished: by its `finish_reason`, or by `[DONE]`.

        Nothing that comes or fails to come after that can take it back.
        """
        finished = sum(choice.finished for choice in self._choices.values())
        if self._lost or not finished:
            return False
        if self._done:
            return True
        return finished == len(self._choices) and finished >= self._n

    def feed(self, data: bytes) -> ChatCompletionChunk | None:
        """Returns what these bytes add up to; None where that is nothing. b"" is the end of the stream."""
        self.ended = not data
        try:
            for name, text in self._reader.feed(data) if data else self._reader.end():
                if text == _DONE:
                    self._finish_all()
                    break
                self._event(name, text)
        except ErrorInBody as error:
            self._fail(error)
        except SHAPE_ERRORS as error:
            self._fail(Malformed(f"{type(error).__name__}: {error}"))
        try:
            return self._take()
        except SHAPE_ERRORS as error:
            self._lost = True
            self._fail(Malformed(f"{type(error).__name__}: {error}"))
        return None

    def _fail(self, failure: Malformed | ErrorInBody) -> None:
        self.failure = self.failure or failure
        self.ended = True

    def _finish_all(self) -> None:
        """Takes `[DONE]` as the end of choices whose server never gives a reason."""
        self.ended = self._done = True
        for index, choice in self._choices.items():
            if not choice.finished:
                choice.finish("stop")
                self._touched[index] = choice

    def _event(self, name: bytes, text: bytes) -> None:
        event = orjson.loads(text)
        if name == b"error" or event.get("error"):
            raise ErrorInBody(event)
        choices = event.get("choices")
        for item in choices or ():
            index = item.get("index") or 0
            choice = self._touched.get(index) or self._touch(index)
            delta = item.get("delta")
            if delta:
                choice.add(delta)
            if item.get("logprobs"):
                choice.logprobs.append(answer.logprobs(item["logprobs"], self._top))
            if item.get("finish_reason"):
                choice.finish(item["finish_reason"])
        if event.get("usage"):
            self._count(answer.usage(event["usage"]), alone=not choices)
        if event.get("moderation"):
            self._moderation = answer.struct(event["moderation"])
        if event.get("system_fingerprint") != self._tags.get("system_fingerprint") or event.get("service_tier"):
            self._tag(event)

    def _touch(self, index: int) -> "_Choice":
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = _Choice(index, self._said)
        self._touched[index] = choice
        return choice

    def _tag(self, event: Mapping[str, Any]) -> None:
        tags = {name: event[name] for name in ("system_fingerprint", "service_tier") if event.get(name)}
        self._tags_due = self._tags_due or not tags.items() <= self._tags.items()
        self._tags |= tags

    def _count(self, usage: Usage, *, alone: bool) -> None:
        """Keeps the latest usage. llama.cpp counts each of several choices by itself: those are added up."""
        if alone and self._n > 1 and self._usage is not None:
            usage.completion_tokens += self._usage.completion_tokens
            usage.total_tokens = usage.prompt_tokens + usage.completion_tokens
        self._usage = usage
        self._usage_due = True

    def _take(self) -> ChatCompletionChunk | None:
        if not (self._touched or self._usage_due or self._moderation):
            return None
        touched, self._touched = self._touched, {}
        chunk = ChatCompletionChunk(choices=[choice.take() for choice in touched.values()], moderation=self._moderation)
        self._moderation = None
        self.started = self.started or any(choice.spoke for choice in touched.values())
        if self._usage_due and self._usage is not None:
            chunk.usage.CopyFrom(self._usage)
            self._usage_due = False
        if self._tags_due:
            answer.tag(chunk, self._tags)
            self._tags_due = False
        return chunk


class _Choice:
    """One of the answers: what of it has come since the last `take`."""

    def __init__(self, index: int, said: str) -> None:
        self.index = index
        self._echo = Echo(said) if said else None
        self.finished = False
        self.spoke = False  # has said anything, or finished
        self._begun = False
        self.logprobs: list[Logprobs | None] = []
        self._texts: list[str] = []
        self._delta: Delta | None = None  # everything that is not text
        self._calls: dict[int, ToolCallDelta] = {}
        self._last_call: tuple[int, str] = (-1, "")
        self._reason: str | None = None

    def add(self, delta: Mapping[str, Any]) -> None:
        """Adds a delta. Nearly all of them have content and nothing else."""
        text = delta.get("content")
        if text:
            self._texts.append(text)
            if len(delta) == 1:
                return
        self._add_rest(delta)

    def finish(self, reason: str) -> None:
        """Notes why the answer ended."""
        self._reason = reason
        self.finished = True

    def take(self) -> ChunkChoice:
        """Returns what has come since the last time."""
        delta = self._delta or Delta()
        if not self._begun:
            self._begun = True
            delta.role = "assistant"
        if self._echo is not None:
            self._strip(self._echo)
        if self._texts:
            delta.content = "".join(self._texts)
        if self._calls:
            delta.tool_calls.extend(self._calls.values())
        spoke = self._texts or self._calls or self._delta is not None or self._reason
        self.spoke = self.spoke or bool(spoke)
        taken = ChunkChoice(index=self.index, delta=delta, finish_reason=self._reason)
        if self.logprobs and not (self._echo and self._echo.is_open):
            self._add_logprobs(taken.logprobs)
        self._texts, self._calls = [], {}
        self._delta = self._reason = None
        return taken

    def _add_logprobs(self, taken: Logprobs) -> None:
        parts, self.logprobs = [part for part in self.logprobs if part], []
        content = [item for part in parts for item in part.content]
        if self._echo and self._echo.repeated:
            content = list(new_tokens(content, self._echo.repeated))
            self._echo.repeated = ""
        taken.content.extend(content)
        taken.refusal.extend(item for part in parts for item in part.refusal)

    def _strip(self, echo: Echo) -> None:
        text = echo.strip("".join(self._texts)) + (echo.rest() if self._reason else "")
        self._texts = [text] if text else []

    def _add_rest(self, delta: Mapping[str, Any]) -> None:
        reasoning = delta.get("reasoning_content") or delta.get("reasoning")
        if isinstance(reasoning, str) and reasoning:
            self._other().reasoning_content += reasoning
        if delta.get("refusal"):
            self._other().refusal += delta["refusal"]
        for call in delta.get("tool_calls") or ():
            self._add_call(call)
        if delta.get("function_call"):
            _add_named(self._other().function_call, delta["function_call"], "arguments")
        if delta.get("annotations"):
            self._other().annotations.extend(answer.struct(item) for item in delta["annotations"])
        if delta.get("audio"):
            self._add_audio(delta["audio"])

    def _other(self) -> Delta:
        if self._delta is None:
            self._delta = Delta()
        return self._delta

    def _add_call(self, data: Mapping[str, Any]) -> None:
        index = self._call_index(data)
        call = self._calls.get(index)
        if call is None:
            call = self._calls[index] = ToolCallDelta(index=index)
        if data.get("id"):
            call.id = data["id"]
            call.type = data.get("type") or "function"
        elif data.get("type"):
            call.type = data["type"]
        if data.get("custom"):
            _add_named(call.custom, data["custom"], "input")
        elif data.get("function"):
            _add_named(call.function, data["function"], "arguments")

    def _call_index(self, data: Mapping[str, Any]) -> int:
        """Returns the call's index; where the server leaves it out, a new id begins a new call."""
        last, last_id = self._last_call
        index, call_id = data.get("index"), data.get("id") or ""
        if index is None:
            index = last + 1 if last < 0 or (call_id and call_id != last_id) else last
        self._last_call = (index, call_id or last_id)
        return int(index)

    def _add_audio(self, data: Mapping[str, Any]) -> None:
        join_audio(self._other().audio, answer.audio(data))


def _add_named(piece: FunctionCallDelta | CustomCallDelta, data: Mapping[str, Any], text: str) -> None:
    """Adds to a piece of a call: the name comes once, the text is appended."""
    if data.get("name"):
        piece.name = data["name"]
    value = data.get(text)
    if value is not None:
        setattr(piece, text, getattr(piece, text) + (value if isinstance(value, str) else orjson.dumps(value).decode()))
