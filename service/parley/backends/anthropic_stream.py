"""From the events of an Anthropic stream to chunks: what arrives together becomes one chunk.

The first event tells what the prompt costs, and leaves as a chunk of its own where nothing else comes with it: whoever
counts a stream that breaks has it by then. (Messages API reference, streaming.)
"""

from collections.abc import Mapping
from typing import Any

import orjson

from parley.backends import anthropic_answer as answer
from parley.backends.anthropic_blocks import THINKING_BLOCKS, Blocks
from parley.backends.failures import SHAPE_ERRORS, ErrorInBody, Malformed
from parley.backends.sse import EventReader
from parley.v1.chat_completions_pb2 import ChatCompletionChunk
from parley.v1.message_pb2 import ChunkChoice, Delta, ToolCallDelta

_KNOWN = frozenset({"type", "delta", "usage"})
_KNOWN_OF_END = answer.OF_CHOICES | {"stop_reason", "stop_details"}


class StreamReader:
    """Reads the stream of one answer; see `body_shapes.Reader`."""

    def __init__(self) -> None:
        self.started = False
        self.ended = False
        self.failure: Malformed | ErrorInBody | None = None
        self._events = EventReader()
        self._said = _Said()
        self._reason: str | None = None
        self._reason_due = False
        self._counts: dict[str, Any] = {}
        self._counted: ChatCompletionChunk | None = None  # has the usage that is still to be told
        self._unknown: dict[str, Any] = {}  # fields of the answer that Parley does not know
        self._of_choice: dict[str, Any] = {}

    @property
    def whole(self) -> bool:
        """Tells whether the answer has ended for a reason; `message_stop` adds nothing to that."""
        return self.failure is None and self._reason is not None

    def feed(self, data: bytes) -> ChatCompletionChunk | None:
        """Returns what these bytes add up to; None where that is nothing. b"" is the end of the stream."""
        self.ended = not data
        try:
            for _, text in self._events.feed(data) if data else self._events.end():
                self._event(orjson.loads(text))
                if self.ended and data:
                    break
        except ErrorInBody as error:
            self._fail(error)
        except SHAPE_ERRORS as error:
            self._fail(Malformed(f"{type(error).__name__}: {error}"))
        return self._take()

    def _fail(self, failure: Malformed | ErrorInBody) -> None:
        self.failure = failure
        self.ended = True

    def _event(self, event: Mapping[str, Any]) -> None:
        """Takes an event in. Those of an unknown type, as `ping`, are passed over."""
        match event["type"]:
            case "content_block_delta":
                self._said.add(event["index"], event["delta"])
            case "content_block_start":
                self._said.begin(event["index"], event["content_block"])
            case "content_block_stop":
                self._said.close(event["index"])
            case "message_start":
                self._count(event["message"].get("usage"))
            case "message_delta":
                self._count(event.get("usage"))
                self._end(event["delta"])
                self._unknown |= {name: event[name] for name in event.keys() - _KNOWN if event[name] is not None}
            case "message_stop":
                self._stop()
            case "error":
                raise ErrorInBody(event)

    def _count(self, usage: Mapping[str, Any] | None) -> None:
        """Keeps the latest counts; each is of all that has come so far."""
        if usage:
            self._counts |= {name: count for name, count in usage.items() if count is not None}
            self._counted = ChatCompletionChunk(
                usage=answer.usage(self._counts), service_tier=answer.tier(self._counts)
            )

    def _end(self, delta: Mapping[str, Any]) -> None:
        if delta.get("stop_reason"):
            self._finish(answer.finish_reason(delta["stop_reason"]))
        self._of_choice |= {name: delta[name] for name in answer.OF_CHOICES if delta.get(name) is not None}
        self._unknown |= {name: delta[name] for name in delta.keys() - _KNOWN_OF_END if delta[name] is not None}
        if words := answer.refusal(delta):
            self._said.delta.refusal = words

    def _stop(self) -> None:
        self.ended = True
        if self._reason is None:
            self._finish(answer.finish_reason(None))

    def _finish(self, reason: str) -> None:
        self._reason = reason
        self._reason_due = True
        self._said.end()

    def _take(self) -> ChatCompletionChunk | None:
        delta = self._said.take()
        if delta is None and not (self._reason_due or self._counted):
            return None
        chunk = self._counted or ChatCompletionChunk()
        if delta is not None or self._reason_due:
            self.started = True
            reason = self._reason if self._reason_due else None
            chunk.choices.append(ChunkChoice(index=0, delta=delta or Delta(), finish_reason=reason))
            answer.add_unknown(chunk.choices[0], self._of_choice, self._of_choice)
        answer.add_unknown(chunk, self._unknown, self._unknown)
        self._unknown, self._of_choice = {}, {}
        self._counted = None
        self._reason_due = False
        return chunk


class _Said:
    """What has come of the answer since the last `take`."""

    def __init__(self) -> None:
        self._begun = False
        self._texts: list[str] = []
        self._delta: Delta | None = None  # everything that is not text
        self._calls: dict[int, ToolCallDelta] = {}
        self._tools: dict[int, int] = {}  # block to tool call
        self._without_arguments: set[int] = set()  # tool calls
        self._tool_count = 0
        self._blocks = Blocks()
        self._unknown: dict[str, Any] = {}

    @property
    def delta(self) -> Delta:
        """The delta for everything that is not text."""
        if self._delta is None:
            self._delta = Delta()
        return self._delta

    def begin(self, index: int, block: Mapping[str, Any]) -> None:
        """Begins a block. The documented API sends what is in it later; others speak here already."""
        self._blocks.begin(index, block)
        match block["type"]:
            case "tool_use":
                self._begin_call(index, block)
            case "text" if block["text"]:
                self._texts.append(_text(block["text"]))
            case "thinking" if block["thinking"]:
                self.delta.reasoning_content += block["thinking"]

    def add(self, index: int, piece: Mapping[str, Any]) -> None:
        """Adds a piece of a block."""
        self._blocks.add(index, piece)
        match piece["type"]:
            case "text_delta":
                if piece["text"]:
                    self._texts.append(_text(piece["text"]))
            case "thinking_delta":
                if piece["thinking"]:
                    self.delta.reasoning_content += piece["thinking"]
            case "input_json_delta":
                if piece["partial_json"] and index in self._tools:
                    self._add_arguments(index, piece["partial_json"])
            case "citations_delta":
                self.delta.annotations.extend(answer.annotations([piece["citation"]]))

    def close(self, index: int) -> None:
        """Ends a block. A call without arguments has those of an empty object."""
        if thinking := self._blocks.close(index):
            self._unknown.setdefault(THINKING_BLOCKS, []).extend(thinking)
        if self._tools.get(index) in self._without_arguments:
            self._add_arguments(index, "{}")

    def end(self) -> None:
        """Ends the answer."""
        self._unknown |= self._blocks.end()

    def take(self) -> Delta | None:
        """Returns what has come since the last time; None where that is nothing."""
        if self._unknown:
            self.delta.extra_json = answer.dumps(self._unknown)
            self._unknown = {}
        if not (self._texts or self._calls or self._delta is not None):
            return None
        delta = self.delta
        if not self._begun:
            self._begun = True
            delta.role = "assistant"
        if self._texts:
            delta.content = "".join(self._texts)
        delta.tool_calls.extend(self._calls.values())
        self._texts, self._calls, self._delta = [], {}, None
        return delta

    def _begin_call(self, index: int, block: Mapping[str, Any]) -> None:
        place = self._tools[index] = self._tool_count
        self._tool_count += 1
        self._without_arguments.add(place)
        call = self._calls[place] = ToolCallDelta(index=place, id=block["id"], type="function")
        call.function.name = block["name"]
        answer.add_unknown(call, block, block.keys() - answer.KNOWN_OF_CALLS)
        if block.get("input"):
            self._add_arguments(index, orjson.dumps(block["input"]).decode())

    def _add_arguments(self, index: int, text: str) -> None:
        place = self._tools[index]
        self._without_arguments.discard(place)
        call = self._calls.get(place)
        if call is None:
            call = self._calls[place] = ToolCallDelta(index=place)
        call.function.arguments += text


def _text(text: Any) -> str:
    if not isinstance(text, str):
        raise TypeError("a piece of text is no text")
    return text
