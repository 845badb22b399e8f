"""One choice of an answer in OpenAI's JSON: whole messages and deltas are read by the same code.

Servers differ in where they put what. Text may be a string, a list of parts, or nested lists; reasoning has two names;
the finish reason may stand in every chunk; ids and names of tool calls come in many ways. What carries the answer must
be right, else TypeError or Malformed is raised. What decorates it is repaired or left out.
"""

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from parley.backends.errors.classifier import ErrorInBody, MalformedResponse
from parley.backends.openai.logprobs import logprobs
from parley.backends.openai.reasoning_details import DETAILS, DetailsReader
from parley.backends.parsing import finish_reasons
from parley.backends.parsing.deltas import CONTENT, REASONING, REFUSAL, DeltaBuffer
from parley.backends.parsing.lenient_json import DEEPEST_TEXT, Source, count, is_deep, struct, text_or_none
from parley.backends.parsing.prefix_stripper import PrefixStripper
from parley.backends.parsing.tool_calls import Fragment, ToolCalls
from parley.core.messages import extra_fields
from parley.core.ports import UpstreamCall
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.message_pb2 import Audio, ChunkChoice, Delta

TEXT_ONLY = frozenset({"role", "content"})
KNOWN_OF_MESSAGE = TEXT_ONLY | {
    "annotations",
    "audio",
    "function_call",
    "reasoning",
    "reasoning_content",
    "refusal",
    "tool_calls",
}
_KNOWN_AUDIO = frozenset({"id", "expires_at", "data", "transcript"})
USUAL = frozenset({"index", "delta", "message", "finish_reason", "logprobs"})
_KNOWN_OF_CHOICE = USUAL | {"error", "usage"}
_REFERENCE = "annotation"

# What the parts of a content are: the kind of text, and the members that may hold it. (OpenAI, Responses and chat
# completions; Mistral, reasoning; Anthropic, as proxies pass it on.)
_PARTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "text": (CONTENT, ("text", "content")),
    "output_text": (CONTENT, ("text", "content")),
    "input_text": (CONTENT, ("text", "content")),
    "thinking": (REASONING, ("thinking", "text", "content")),
    "reasoning": (REASONING, ("reasoning", "text", "content", "summary")),
    "reasoning_text": (REASONING, ("text", "content")),
    "reasoning_content": (REASONING, ("reasoning_content", "text", "content")),
    "summary_text": (REASONING, ("text", "content")),
    "refusal": (REFUSAL, ("refusal", "text", "content")),
}


@dataclass(slots=True)
class ExpectedAnswer:
    """What a call lets its answer be.

    Args:
        request: What was sent.
        delivered: What the caller has got of the answer already.
        may_be_empty: Whether an answer may end well without any output.
        on_reasoning: Is called with the server's name for reasoning, once there is some.
        left_out: Members of the answer that are not for the caller.
    """

    request: CreateChatCompletionRequest
    delivered: str = ""
    may_be_empty: bool = False
    on_reasoning: Callable[[str], None] | None = None
    left_out: AbstractSet[str] = frozenset()

    @property
    def n(self) -> int:
        """How many choices the answer has."""
        return self.request.n or 1

    @property
    def names(self) -> AbstractSet[str]:
        """The names of the tools that are offered."""
        names = [function.name for function in self.request.functions]
        return frozenset(names).union(tool.function.name or tool.custom.name for tool in self.request.tools)


def expected(
    call: UpstreamCall,
    delivered: str = "",
    on_reasoning: Callable[[str], None] | None = None,
    left_out: AbstractSet[str] = frozenset(),
) -> ExpectedAnswer:
    """Returns what a call lets its answer be: an empty one where it may stop at once, or has been said already."""
    may_be_empty = call.is_continuation or call.request.HasField("stop")
    return ExpectedAnswer(call.request, delivered, may_be_empty, on_reasoning, left_out)


class ChoiceReader:
    """Reads one choice, from one message or from many deltas."""

    def __init__(self, index: int, expected_answer: ExpectedAnswer) -> None:
        self.has_output = False
        self.has_failed = False
        self.reason: str | None = None  # in the vendor's words
        self.continued = False  # said more after it had given its reason
        self.pieces = DeltaBuffer(
            index, PrefixStripper(expected_answer.delivered) if expected_answer.delivered else None
        )
        self._on_reasoning = expected_answer.on_reasoning
        self._details: DetailsReader | None = DetailsReader()
        self._top = expected_answer.request.top_logprobs
        names = expected_answer.names
        self._calls = ToolCalls(names)
        self._function = ToolCalls(names)
        self._nulls: set[str] = set()
        self._nulls_of_choice: set[str] = set()

    def read(self, choice: Mapping[str, Any], source: Source, *path: str | int) -> None:
        """Reads a choice of a whole answer, or what a chunk adds to one. Raises ErrorInBody, MalformedResponse."""
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

    def add_text(self, text: str) -> None:
        """Adds text of a delta that has nothing else."""
        self._record_output()
        self.pieces.text(CONTENT, text)

    def has_finished(self, *, done: bool) -> bool:
        """Tells whether the choice has ended; `done` says that the whole answer has.

        A reason behind which more was said was no end: only the end of the whole answer is one then.
        """
        if self.has_failed:
            return False
        return done or (self.reason is not None and not self.continued)

    def finish_reason(self) -> str:
        """Returns why the choice ended, in OpenAI's words. Raises MalformedResponse for no good reason."""
        call_reason = finish_reasons.TOOL_CALLS if self._calls else finish_reasons.STOP
        call_reason = finish_reasons.FUNCTION_CALL if self._function else call_reason
        if self.reason is None:
            return call_reason
        reason = finish_reasons.to_openai(self.reason)
        if reason in finish_reasons.CALLS and not (self._calls or self._function):
            return finish_reasons.STOP
        return reason

    def end(self) -> None:
        """Ends the choice well: what was held back comes, and the reason. Raises MalformedResponse."""
        reason = self.finish_reason()
        self._drain_calls()
        self.pieces.finish(reason)

    def drain(self) -> list[ChunkChoice]:
        """Returns what the choice says, since the last time."""
        return self.pieces.drain()

    def _add(self, message: Mapping[str, Any], source: Source, *path: str | int) -> None:
        """Adds a message or a delta. Nearly all deltas have content and nothing else."""
        content = message.get("content")
        if content.__class__ is str and message.keys() <= TEXT_ONLY:
            if content:
                self.add_text(content)
            return
        fields = _without_repeated(source.unknown(message, KNOWN_OF_MESSAGE, *path), self._nulls)
        mark = self.pieces.separate() if fields else 0
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
        """Adds reasoning; the details count only where no other field of the choice has it."""
        field = "reasoning_content" if message.get("reasoning_content") else "reasoning"
        reasoning = message.get(field)
        if self._details is not None and message.get(DETAILS) and not reasoning:
            field, reasoning = DETAILS, self._details.read(message[DETAILS])
        elif reasoning:
            self._details = None
        if isinstance(reasoning, str | list | dict):
            self._add_text(reasoning, REASONING, source, *path, field)
            if reasoning and self._on_reasoning is not None:
                self._on_reasoning(field)
                self._on_reasoning = None

    def _add_text(self, data: Any, kind: str, source: Source, *path: str | int) -> None:
        for found, text, at in _texts(data, kind, path):
            if not text:
                continue
            self._record_output()
            if found is not _REFERENCE:
                self.pieces.text(found, text)
            else:
                self._add_annotations([source.at(*at)])

    def _add_calls(self, message: Mapping[str, Any], source: Source, *path: str | int) -> None:
        calls = message.get("tool_calls") or ()
        if isinstance(calls, dict):
            raise TypeError("tool_calls is no list")
        for place, data in enumerate(calls):
            self._record_output()
            for fragment in self._calls.add(Fragment(data, source, *path, "tool_calls", place)):
                self.pieces.tool_call(fragment)
        if message.get("function_call"):
            self._record_output()
            self._add_function(self._function.add(Fragment(message, source, *path, field="function_call")))

    def _add_function(self, fragments: list[Any]) -> None:
        for fragment in fragments:
            self.pieces.delta(Delta(function_call=fragment.function))

    def _drain_calls(self) -> None:
        for piece in self._calls.end():
            self.pieces.tool_call(piece)
        self._add_function(self._function.end())

    def _add_others(self, message: Mapping[str, Any], source: Source, *path: str | int) -> None:
        annotations = message.get("annotations")
        if isinstance(annotations, list) and annotations:
            self._add_annotations(source.at(*path, "annotations"))
        if isinstance(message.get("audio"), dict) and message["audio"]:
            self._record_output()
            self.pieces.delta(Delta(audio=audio(message["audio"], source, *path, "audio")))

    def _add_annotations(self, data: list[Any]) -> None:
        """Adds annotations as text, which keeps their numbers and the order of their keys, and as Structs."""
        kept = [item for item in data if isinstance(item, dict) and not is_deep(item, DEEPEST_TEXT)]
        if kept:
            structs = [made for made in map(struct, kept) if made is not None]
            self.pieces.delta(Delta(annotations=structs, extra_json=extra_fields.dumps({"annotations": kept})))

    def _add_unknown(self, fields: dict[str, Any], mark: int) -> None:
        """Adds members of a message that Parley does not know; a list or an object may be the output, as images are."""
        if any(isinstance(value, list | dict) and value for value in fields.values()):
            self._record_output()
        self.pieces.unknown(fields, mark)

    def _add_logprobs(self, data: Any, source: Source, *path: str | int) -> None:
        if (read := logprobs(data, self._top, source, *path)) is not None:
            self.pieces.logprobs(read)

    def _add_rest(self, choice: Mapping[str, Any], source: Source, *path: str | int) -> None:
        if choice.get("error"):
            self.has_failed = True
            raise ErrorInBody({"error": choice["error"]})
        if fields := _without_repeated(source.unknown(choice, _KNOWN_OF_CHOICE, *path), self._nulls_of_choice):
            self.pieces.unknown_of_choice(fields)

    def _record_output(self) -> None:
        self.has_output = True
        if self.reason is not None:
            self.continued = True

    def _record_reason(self, raw: Any) -> None:
        if finish_reasons.is_failure(raw):
            self.has_failed = True
            raise MalformedResponse(f"the answer ended with the finish_reason {raw!r}")
        reason = finish_reasons.normalized(raw)
        if reason is not None and (self.reason is None or reason != finish_reasons.STOP):
            self.reason = reason


def _without_repeated(fields: dict[str, Any], nulls: set[str]) -> dict[str, Any]:
    """Leaves out the nulls that have come before: some servers have the same ones in each delta."""
    if None not in fields.values():
        return fields
    new = {name: value for name, value in fields.items() if value is not None or name not in nulls}
    nulls.update(name for name, value in new.items() if value is None)
    return new


_Path = tuple[str | int, ...]


def _texts(data: Any, kind: str, path: _Path) -> Iterator[tuple[str, Any, _Path]]:
    """Yields the texts of a content in order, with their kinds and paths; what is no text is a reference, an object."""
    if isinstance(data, str):
        yield kind, data, path
    elif isinstance(data, list):
        for place, item in enumerate(data):
            yield from _texts(item, kind, (*path, place))
    elif isinstance(data, dict):
        inner, names = _PARTS.get(data.get("type") or "text", ("", ()))
        found = next((name for name in names if data.get(name)), None)
        if not inner:
            yield _REFERENCE, data, path
        elif found is not None:
            yield from _texts(data[found], kind if inner is CONTENT else inner, (*path, found))
    elif data is not None:
        raise TypeError(f"a text is of the type {type(data).__name__}")


def audio(data: Mapping[str, Any], source: Source, *path: str | int) -> Audio:
    """Reads spoken output, or a piece of it, the object at a path of `source`."""
    fields = source.unknown(data, _KNOWN_AUDIO, *path)
    return Audio(
        id=text_or_none(data.get("id")) or "",
        expires_at=count(data.get("expires_at")),
        data=text_or_none(data.get("data")),
        transcript=text_or_none(data.get("transcript")),
        extra_json=extra_fields.dumps(fields) if fields else None,
    )
