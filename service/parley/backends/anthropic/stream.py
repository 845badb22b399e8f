"""Converts the events of an Anthropic stream to chunks; events that arrive together become one chunk.

The first event holds the prompt's usage, which is emitted immediately, so that it is known if the stream breaks.
Source: Messages API reference, streaming.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from parley.backends import lenient_json
from parley.backends.anthropic import response as answer
from parley.backends.anthropic.blocks import THINKING_BLOCKS, Blocks
from parley.backends.errors.classifier import SHAPE_ERRORS, ErrorInBody, MalformedResponse, shape_error
from parley.backends.http.sse import EventReader
from parley.backends.lenient_json import Source
from parley.backends.parsing.deltas import CONTENT, REASONING, REFUSAL, DeltaBuffer
from parley.backends.parsing.tool_calls import NO_ARGUMENTS
from parley.v1.chat_completions_pb2 import ChatCompletionChunk
from parley.v1.message_pb2 import Delta, ToolCallDelta

_KNOWN = frozenset({"type", "delta", "usage"})
_KNOWN_OF_END = answer.OF_CHOICES | {"stop_reason", "stop_details"}
_NOT_AN_EVENT: dict[str, Any] = {}


class StreamReader:
    """Parses the stream of one answer; see `body_shapes.Reader`.

    Args:
        may_be_empty: Whether an answer without output is valid.
    """

    def __init__(self, *, may_be_empty: bool = False) -> None:
        self.started = False
        self.ended = False
        self.failure: MalformedResponse | ErrorInBody | None = None
        self._may_be_empty = may_be_empty
        self._events = EventReader()
        self._answer = _AnswerBuilder()
        self._reason: str | None = None
        self._stopped = False
        self._is_complete = False
        self._counts: dict[str, Any] = {}
        self._counted: ChatCompletionChunk | None = None  # holds usage that has not been emitted
        self._unknown: dict[str, Any] = {}  # unknown fields that have not been emitted

    @property
    def is_complete(self) -> bool:
        """Whether the answer has a stop reason; `message_stop` is not required."""
        return self._is_complete if self.ended else self._reason is not None

    def feed(self, data: bytes) -> ChatCompletionChunk | None:
        """Returns the output of these bytes as one chunk, or None; b"" marks the end of the stream."""
        try:
            for name, text in self._events.feed(data) if data else self._events.end():
                self._event(self._read(text), name, Source(text))
                if self._stopped:
                    break
        except (ErrorInBody, MalformedResponse) as error:
            self._fail(error)
        except SHAPE_ERRORS as error:
            self._fail(shape_error(error))
        if self._stopped or self.failure or not data:
            self._end()
        return self._drain()

    def _fail(self, failure: MalformedResponse | ErrorInBody) -> None:
        self.failure = self.failure or failure

    def _read(self, text: bytes) -> Mapping[str, Any]:
        """Parses an event; returns an empty one for anything but a JSON object, such as a heartbeat."""
        try:
            event = orjson.loads(text)
        except orjson.JSONDecodeError:
            if not text.lstrip().startswith(b"{"):
                return _NOT_AN_EVENT
            self._answer.deltas.is_repaired = True
            event = lenient_json.repaired(text)
        return event if isinstance(event, dict) else _NOT_AN_EVENT

    def _event(self, event: Mapping[str, Any], name: bytes, source: Source) -> None:
        """Handles an event; unknown types, such as `ping`, are ignored."""
        if name == b"error" or event.get("error"):
            raise ErrorInBody(event)
        match event.get("type"):
            case "content_block_delta":
                self._answer.add(event["index"], event["delta"])
            case "content_block_start":
                self._answer.begin(event["index"], event["content_block"], source)
            case "content_block_stop":
                self._answer.close(event["index"])
            case "message_start":
                self._count(event["message"].get("usage"))
            case "message_delta":
                self._count(event.get("usage"))
                self._record_end(event["delta"])
                self._unknown |= {name: event[name] for name in event.keys() - _KNOWN if event[name] is not None}
            case "message_stop":
                self._stopped = True

    def _count(self, usage: Any) -> None:
        """Stores the latest counts, which are cumulative."""
        if isinstance(usage, Mapping):
            self._counts |= {name: count for name, count in usage.items() if count is not None}
            self._counted = ChatCompletionChunk(
                usage=answer.usage(self._counts), service_tier=answer.tier(self._counts)
            )

    def _record_end(self, delta: Mapping[str, Any]) -> None:
        if delta.get("stop_reason"):
            self._reason = answer.finish_reason(delta["stop_reason"])
        of_choice = {name: delta[name] for name in answer.OF_CHOICES if delta.get(name) is not None}
        self._answer.deltas.add_unknown_of_choice(of_choice)
        self._unknown |= {name: delta[name] for name in delta.keys() - _KNOWN_OF_END if delta[name] is not None}
        if refusal_text := answer.refusal(delta):
            self._answer.text(REFUSAL, refusal_text)

    def _end(self) -> None:
        """Finishes the answer and determines whether it is complete."""
        if self.ended:
            return
        self.ended = True
        if self._reason is None and not self._stopped:
            return
        try:
            answer.require_output(self._reason, has_output=self._answer.has_output, may_be_empty=self._may_be_empty)
        except MalformedResponse as error:
            self._fail(error)
            return
        self._answer.end()
        self._answer.deltas.finish(self._reason or answer.finish_reason(None))
        self._is_complete = True

    def _drain(self) -> ChatCompletionChunk | None:
        chunk = self._answer.deltas.drain()
        self.started = self.started or bool(chunk.choices)
        if not (chunk.choices or self._counted):
            return None
        if self._counted:
            chunk.MergeFrom(self._counted)
        answer.add_unknown(chunk, self._unknown, self._unknown)
        self._unknown = {}
        self._counted = None
        return chunk


class _AnswerBuilder:
    """Assembles the answer from its blocks."""

    def __init__(self) -> None:
        self.deltas = DeltaBuffer(0)
        self.has_output = False
        self._tools: dict[int, int] = {}  # block index to tool call index
        self._without_arguments: set[int] = set()  # indexes of tool calls
        self._tool_count = 0
        self._pending_text = ""  # an incomplete surrogate pair at the end of the latest arguments
        self._blocks = Blocks()

    def begin(self, index: int, block: Mapping[str, Any], source: Source) -> None:
        """Begins a block. Compatible servers may include content that the documented API sends in later events."""
        self._blocks.begin(index, block)
        match block["type"]:
            case "tool_use":
                self._begin_call(index, block, source)
            case "text":
                self.text(CONTENT, block["text"])
            case "thinking":
                self.text(REASONING, block["thinking"])

    def add(self, index: int, delta: Mapping[str, Any]) -> None:
        """Adds a delta to a block."""
        self._blocks.add(index, delta)
        match delta["type"]:
            case "text_delta":
                self.text(CONTENT, delta["text"])
            case "thinking_delta":
                self.text(REASONING, delta["thinking"])
            case "input_json_delta":
                if delta["partial_json"] and index in self._tools:
                    self._add_arguments(index, _text(delta["partial_json"]))
            case "citations_delta":
                if read := answer.annotations([delta["citation"]]):
                    self.deltas.add_delta(Delta(annotations=read))

    def text(self, kind: str, text: Any) -> None:
        """Adds text of a kind: CONTENT, REASONING or REFUSAL."""
        if _text(text):
            self.has_output = True
            self.deltas.add_text(kind, text)

    def close(self, index: int) -> None:
        """Ends a block. A call without arguments gets an empty object."""
        if thinking := self._blocks.close(index):
            self._add_unknown({THINKING_BLOCKS: thinking})
        if self._tools.get(index) in self._without_arguments:
            self._add_arguments(index, NO_ARGUMENTS)

    def end(self) -> None:
        """Ends the answer."""
        self._add_unknown(self._blocks.end())

    def _add_unknown(self, fields: Mapping[str, Any]) -> None:
        if fields:
            self.deltas.add_unknown(fields, self.deltas.separate())

    def _begin_call(self, index: int, block: Mapping[str, Any], source: Source) -> None:
        self.has_output = True
        place = self._tools[index] = self._tool_count
        self._tool_count += 1
        self._without_arguments.add(place)
        call = ToolCallDelta(index=place, id=answer.id_of_call(block), type="function")
        call.function.name, call.function.arguments = answer.name_of_call(block), ""
        answer.add_unknown(call, block, block.keys() - answer.KNOWN_OF_CALLS)
        self.deltas.add_tool_call(call)
        if block.get("input"):
            self._add_arguments(index, answer.dumps(source.at("content_block", "input")))

    def _add_arguments(self, index: int, text: str) -> None:
        place = self._tools[index]
        self._without_arguments.discard(place)
        if self.deltas.is_repaired:
            text, self._pending_text = lenient_json.repair_surrogates(self._pending_text + text)
        call = ToolCallDelta(index=place)
        call.function.arguments = text
        self.deltas.add_tool_call(call)


def _text(text: Any) -> str:
    if not isinstance(text, str):
        raise TypeError("a text delta is not a string")
    return text
