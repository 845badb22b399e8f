"""Parses one choice in OpenAI's JSON; complete messages and deltas share the same code.

Servers differ: text may be a string, a list of parts or nested lists; reasoning has two names; the finish reason may
be in every chunk; ids and names of tool calls vary. Malformed output raises TypeError or MalformedResponse. Malformed
optional data is repaired or omitted.
"""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from parley.backends.errors.classifier import ErrorInBody, MalformedResponse
from parley.backends.lenient_json import DEEPEST_TEXT, Source, count, is_deep, struct, text_or_none
from parley.backends.openai.content import KNOWN_OF_MESSAGE, REFERENCE, TEXT_ONLY, texts
from parley.backends.openai.logprobs import logprobs
from parley.backends.openai.reasoning_details import DETAILS, DetailsReader
from parley.backends.parsing import finish_reasons
from parley.backends.parsing.deltas import CONTENT, REASONING, REFUSAL, DeltaBuffer
from parley.backends.parsing.prefix_stripper import PrefixStripper
from parley.backends.parsing.tool_calls import Fragment, ToolCalls
from parley.core.messages import extra_fields
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.message_pb2 import Audio, Delta

_KNOWN_AUDIO = frozenset({"id", "expires_at", "data", "transcript"})
USUAL = frozenset({"index", "delta", "message", "finish_reason", "logprobs"})
_KNOWN_OF_CHOICE = USUAL | {"error", "usage"}
_NO_NAMES: frozenset[str] = frozenset()


@dataclass(slots=True)
class ExpectedAnswer:
    """Properties of a call that affect the parsing of its answer."""

    request: CreateChatCompletionRequest
    """The request."""
    delivered: str = ""
    """The part of the answer that the caller already has; a repetition of it is removed."""
    has_prefill: bool = False
    """Whether the answer continues the last message of the request."""
    on_reasoning: Callable[[str], None] | None = None
    """Called with the server's field name for reasoning when the first reasoning of a choice arrives."""
    hidden_fields: AbstractSet[str] = frozenset()
    """Unknown fields of the response that are not forwarded to the caller."""

    @property
    def may_be_empty(self) -> bool:
        """Whether an answer without output is valid, as for a continuation and with `stop`."""
        return self.has_prefill or self.request.HasField("stop")

    @property
    def n(self) -> int:
        """The number of requested choices."""
        return self.request.n or 1

    @property
    def names(self) -> AbstractSet[str]:
        """The names of the tools and functions in the request."""
        names = [function.name for function in self.request.functions]
        return frozenset(names).union(tool.function.name or tool.custom.name for tool in self.request.tools)


class ChoiceReader:
    """Parses one choice, from one message or from many deltas."""

    __slots__ = (
        "_calls",
        "_details",
        "_expected",
        "_function",
        "_has_reasoning",
        "_nulls",
        "_nulls_of_choice",
        "_on_reasoning",
        "continued",
        "deltas",
        "has_failed",
        "has_output",
        "reason",
    )

    def __init__(self, index: int, expected_answer: ExpectedAnswer) -> None:
        self.has_output = False
        self.has_failed = False
        self.reason: str | None = None  # the vendor's finish reason, normalized
        self.continued = False  # whether output followed the finish reason
        self.deltas = DeltaBuffer(
            index, PrefixStripper(expected_answer.delivered) if expected_answer.delivered else None
        )
        self._expected = expected_answer
        self._on_reasoning = expected_answer.on_reasoning
        self._has_reasoning = False  # in another field than the details
        # Few choices need these; a stream keeps them as long as it lasts.
        self._details: DetailsReader | None = None
        self._calls: ToolCalls | None = None
        self._function: ToolCalls | None = None
        self._nulls = self._nulls_of_choice = _NO_NAMES

    def read(self, choice: Mapping[str, Any], source: Source, *path: str | int) -> None:
        """Parses a choice of a complete response or of a chunk, at `path` in `source`.

        Raises:
            ErrorInBody: If the choice holds an error.
            MalformedResponse: If the choice ended with a failure.
        """
        name = "delta" if choice.get("delta") is not None else "message"
        message = choice.get(name)
        if message:
            self._add(message, source, *path, name)
        if choice.get("logprobs"):
            self._add_logprobs(choice["logprobs"], source, *path, "logprobs")
        if not choice.keys() <= USUAL:
            self._add_rest(choice, source, *path)
        if choice.get("finish_reason"):
            self._record_reason(choice["finish_reason"])

    def add_text(self, text: str, kind: str = CONTENT) -> None:
        """Fast path: adds text of a kind, of deltas that have nothing else; see `text_field`."""
        self.has_output = True
        if self.reason is not None:
            self.continued = True
        self.deltas.add_text(kind, text)

    def add_reasoning(self, text: str, field: str) -> None:
        """Fast path: adds the reasoning in a field of a delta that has nothing else."""
        self.add_text(text, REASONING)
        self._has_reasoning = True
        if self._on_reasoning is not None:
            self._on_reasoning(field)
            self._on_reasoning = None

    def has_finished(self, *, done: bool) -> bool:
        """Returns whether the choice has finished successfully; `done`: the answer has ended.

        A finish reason that is followed by output is ignored; the choice then finishes with the answer.
        """
        if self.has_failed:
            return False
        return done or (self.reason is not None and not self.continued)

    def finish_reason(self) -> str:
        """Returns OpenAI's finish reason. Raises MalformedResponse if the vendor's reason is not known as a success."""
        call_reason = finish_reasons.TOOL_CALLS if self._calls else finish_reasons.STOP
        call_reason = finish_reasons.FUNCTION_CALL if self._function else call_reason
        if self.reason is None:
            return call_reason
        reason = finish_reasons.to_openai(self.reason)
        if reason in finish_reasons.CALLS and not (self._calls or self._function):
            return finish_reasons.STOP
        return reason

    def end(self) -> None:
        """Finishes the choice: flushes held-back output and adds the finish reason. Raises MalformedResponse."""
        reason = self.finish_reason()
        if self._calls:
            for delta in self._calls.end():
                self.deltas.add_tool_call(delta)
        if self._function:
            self._add_function(self._function.end())
        self.deltas.finish(reason)

    def _add(self, message: Mapping[str, Any], source: Source, *path: str | int) -> None:
        """Adds a message or a delta. The first branch is the fast path: almost all deltas have content only."""
        content = message.get("content")
        if content.__class__ is str and message.keys() <= TEXT_ONLY:
            if content:
                self.add_text(content)
            return
        fields, self._nulls = _without_repeated(source.unknown(message, KNOWN_OF_MESSAGE, *path), self._nulls)
        mark = self.deltas.separate() if fields else 0
        self._add_texts(message, content, source, *path)
        self._add_calls(message, source, *path)
        self._add_others(message, source, *path)
        if fields:
            self._add_unknown(fields, mark)

    def _add_texts(self, message: Mapping[str, Any], content: Any, source: Source, *path: str | int) -> None:
        self._add_reasoning(message, source, *path)
        if content is not None:
            self._add_text(content, CONTENT, source, *path, "content")
        if message.get("refusal"):
            self._add_text(message["refusal"], REFUSAL, source, *path, "refusal")

    def _add_reasoning(self, message: Mapping[str, Any], source: Source, *path: str | int) -> None:
        """Adds reasoning; `reasoning_details` is used only if no other field of the choice has any."""
        field = "reasoning_content" if message.get("reasoning_content") else "reasoning"
        reasoning = message.get(field)
        if reasoning:
            self._has_reasoning = True
        elif message.get(DETAILS) and not self._has_reasoning:
            self._details = self._details or DetailsReader()
            field, reasoning = DETAILS, self._details.read(message[DETAILS])
        if isinstance(reasoning, str | list | dict):
            self._add_text(reasoning, REASONING, source, *path, field)
            if reasoning and self._on_reasoning is not None:
                self._on_reasoning(field)
                self._on_reasoning = None

    def _add_text(self, data: Any, kind: str, source: Source, *path: str | int) -> None:
        for found, text, at in texts(data, kind, path):
            if not text:
                continue
            self._record_output()
            if found is not REFERENCE:
                self.deltas.add_text(found, text)
            else:
                self._add_annotations([source.at(*at)])

    def _add_calls(self, message: Mapping[str, Any], source: Source, *path: str | int) -> None:
        calls = message.get("tool_calls") or ()
        if isinstance(calls, dict):
            raise TypeError("tool_calls is not a list")
        for position, data in enumerate(calls):
            self._record_output()
            self._calls = self._calls or ToolCalls(self._expected.names)
            for fragment in self._calls.add(Fragment(data, source, *path, "tool_calls", position)):
                self.deltas.add_tool_call(fragment)
        if message.get("function_call"):
            self._record_output()
            self._function = self._function or ToolCalls(self._expected.names)
            self._add_function(self._function.add(Fragment(message, source, *path, field="function_call")))

    def _add_function(self, fragments: list[Any]) -> None:
        for fragment in fragments:
            self.deltas.add_delta(Delta(function_call=fragment.function))

    def _add_others(self, message: Mapping[str, Any], source: Source, *path: str | int) -> None:
        annotations = message.get("annotations")
        if isinstance(annotations, list) and annotations:
            self._add_annotations(source.at(*path, "annotations"))
        if isinstance(message.get("audio"), dict) and message["audio"]:
            self._record_output()
            self.deltas.add_delta(Delta(audio=audio(message["audio"], source, *path, "audio")))

    def _add_annotations(self, data: list[Any]) -> None:
        """Adds annotations as Structs, and as JSON text, which keeps numbers and key order exact."""
        kept = [item for item in data if isinstance(item, dict) and not is_deep(item, DEEPEST_TEXT)]
        if kept:
            structs = [made for made in map(struct, kept) if made is not None]
            self.deltas.add_delta(Delta(annotations=structs, extra_json=extra_fields.dumps({"annotations": kept})))

    def _add_unknown(self, fields: dict[str, Any], mark: int) -> None:
        """Adds unknown fields of a message; a list or an object counts as output, for example `images`."""
        if any(isinstance(value, list | dict) and value for value in fields.values()):
            self._record_output()
        self.deltas.add_unknown(fields, mark)

    def _add_logprobs(self, data: Any, source: Source, *path: str | int) -> None:
        if (read := logprobs(data, self._expected.request.top_logprobs, source, *path)) is not None:
            self.deltas.add_logprobs(read)

    def _add_rest(self, choice: Mapping[str, Any], source: Source, *path: str | int) -> None:
        if choice.get("error"):
            self.has_failed = True
            raise ErrorInBody({"error": choice["error"]})
        fields = source.unknown(choice, _KNOWN_OF_CHOICE, *path)
        fields, self._nulls_of_choice = _without_repeated(fields, self._nulls_of_choice)
        if fields:
            self.deltas.add_unknown_of_choice(fields)

    def _record_output(self) -> None:
        self.has_output = True
        if self.reason is not None:
            self.continued = True

    def _record_reason(self, raw: Any) -> None:
        if finish_reasons.is_failure(raw):
            self.has_failed = True
            raise MalformedResponse(f"the answer ended with the finish_reason {finish_reasons.quoted(raw)}")
        reason = finish_reasons.normalized(raw)
        if reason is not None and (self.reason is None or reason != finish_reasons.STOP):
            self.reason = reason


def _without_repeated(fields: dict[str, Any], nulls: frozenset[str]) -> tuple[dict[str, Any], frozenset[str]]:
    """Drops null fields that were seen before: some servers repeat them in each delta. Returns all null fields, too."""
    if None not in fields.values():
        return fields, nulls
    new = {name: value for name, value in fields.items() if value is not None or name not in nulls}
    return new, nulls.union(name for name, value in new.items() if value is None)


def audio(data: Mapping[str, Any], source: Source, *path: str | int) -> Audio:
    """Parses audio output, or a part of it, at `path` in `source`."""
    fields = source.unknown(data, _KNOWN_AUDIO, *path)
    return Audio(
        id=text_or_none(data.get("id")) or "",
        expires_at=count(data.get("expires_at")),
        data=text_or_none(data.get("data")),
        transcript=text_or_none(data.get("transcript")),
        extra_json=extra_fields.dumps(fields) if fields else None,
    )
