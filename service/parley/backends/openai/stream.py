"""Converts the events of an OpenAI stream to chunks; events that arrive together become one chunk.

A chunk holds the deltas of each choice in order of arrival. Each choice gets its finish reason once, after its last
delta, and the usage follows all choices.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import orjson

from parley.backends import lenient_json
from parley.backends.errors.classifier import SHAPE_ERRORS, ErrorInBody, MalformedResponse, shape_error
from parley.backends.http.sse import EventReader
from parley.backends.openai import response as answer
from parley.backends.openai.choice import USUAL, ChoiceReader, ExpectedAnswer
from parley.backends.openai.content import text_field
from parley.backends.openai.text_events import TextEvents
from parley.backends.openai.usage import usage
from parley.backends.parsing.deltas import CONTENT
from parley.core.messages import extra_fields
from parley.core.ports.plain_text import PlainText, StreamPart
from parley.v1.chat_completions_pb2 import ChatCompletionChunk
from parley.v1.message_pb2 import Usage

_DONE = b"[DONE]"
_NOTHING: Mapping[str, Any] = {}
_MAX_DONE_LENGTH = 16  # bytes, white space included


class StreamReader:
    """Parses the stream of one answer; see `body_shapes.Reader`.

    Events that are not JSON objects, such as heartbeats, are skipped. An event that starts like an object but cannot
    be parsed is a failure.

    `is_complete` is true when every choice has finished successfully; nothing but further output changes it then.
    """

    __slots__ = (
        "_changed",
        "_choices",
        "_done",
        "_events",
        "_expected",
        "_is_plain",
        "_is_repaired",
        "_metadata",
        "_n",
        "_text_index",
        "_texts",
        "_usage",
        "ended",
        "failure",
        "is_complete",
        "started",
    )

    def __init__(self, expected_answer: ExpectedAnswer) -> None:
        self.started = False
        self.ended = False
        self.failure: MalformedResponse | ErrorInBody | None = None
        self._expected = expected_answer
        self._n = expected_answer.n
        self._events = EventReader()
        self._texts = TextEvents()
        self._text_index = 0  # of the choice whose text event was learned
        self._done = False
        self._is_plain = False  # whether an event like the learned one, read alone, has no output but its text
        self._is_repaired = False
        self.is_complete = False
        self._choices: dict[int, ChoiceReader] = {}
        self._changed: dict[int, ChoiceReader] = {}
        self._usage = _Usage(self._n)
        self._metadata = _Metadata(expected_answer.hidden_fields)

    def feed(self, data: bytes) -> StreamPart | None:
        """Returns the output of these bytes as one part, or None; b"" marks the end of the stream."""
        if self._is_plain and (text := self._texts.text_of(data)):
            return PlainText(self._texts.kind, text, len(text) if text.isascii() else len(text.encode()))
        try:
            if data:
                self._read_stream(data)
            else:
                self._read_events(self._events.end(), b"")
        except (ErrorInBody, MalformedResponse) as error:
            self._fail(error)
        except SHAPE_ERRORS as error:
            self._fail(shape_error(error))
        if self.ended or not data:
            self.ended = True
            self._end()
        chunk = self._drain()
        is_known = self._texts.is_known and self._text_index == 0 and self._events.is_between_events
        self._is_plain = is_known and self._choices[0].deltas.is_empty
        return chunk

    def _fail(self, failure: MalformedResponse | ErrorInBody) -> None:
        self.failure = self.failure or failure
        self.ended = True

    def _read_stream(self, data: bytes) -> None:
        """Reads events one by one, and runs of text events at once."""
        at, end = 0, len(data)
        while at < end and not self.ended:
            if self._texts.is_known and self._events.is_between_events:
                at = self._read_texts(data, at)
                if at == end:
                    return
            piece = data[at : self._texts.next_end(data, at)]
            self._read_events(self._events.feed(piece), piece)
            at += len(piece)

    def _read_texts(self, data: bytes, at: int) -> int:
        """Reads the text events at a position, if any. Returns the position after them."""
        try:
            text, at = self._texts.take(data, at)
        except ValueError:  # not strict JSON
            self._texts.forget()
            return at
        if text:
            index = self._text_index
            self._changed[index] = choice = self._choices[index]
            choice.add_text(text, self._texts.kind)
        return at

    def _read_events(self, events: list[tuple[bytes, bytes]], received: bytes) -> None:
        for name, text in events:
            if len(text) <= _MAX_DONE_LENGTH and text.strip() == _DONE:
                self._done = self.ended = True
                return
            if self._event(name, text) and not self._is_repaired:
                self._texts.learn(received, text)
            elif self._texts.is_known:
                self._texts.forget()

    def _event(self, name: bytes, text: bytes) -> bool:
        """Reads an event. Returns whether it has nothing but text for one choice."""
        try:
            event = orjson.loads(text)
        except orjson.JSONDecodeError:
            event = self._repair(text)
        if event.__class__ is not dict:
            answer.raise_named_error(name, event, text)
            return False
        if name == b"error" or event.get("error"):
            raise ErrorInBody(event)
        choices: Any = event.get("choices")
        is_choice_only = choices and self._is_choice_only(event, choices)
        if is_choice_only and self._adds_text(choices[0]):
            return True
        source = lenient_json.Source(text)
        if choices:
            self._read(choices, source)
        else:
            answer.raise_unmarked_error(event)
        if not is_choice_only:
            self._usage.read(event, source)
            self._metadata.read(event, source)
        return False

    def _repair(self, text: bytes) -> Any:
        """Parses invalid JSON leniently; returns None for an event that does not start like an object."""
        if not text.lstrip(b" \t\xef\xbb\xbf").startswith(b"{"):
            return None
        self._is_repaired = True
        for choice in self._choices.values():
            choice.deltas.is_repaired = True
        return lenient_json.repaired(text)

    def _is_choice_only(self, event: Mapping[str, Any], choices: Any) -> bool:
        """Returns whether an event has one choice and no other new data, as almost all have."""
        if len(choices) != 1 or event.get("usage") or not event.keys() <= answer.USUAL_FIELDS:
            return False
        return bool(choices[0]) and "usage" not in choices[0] and self._metadata.are_known(event)

    def _adds_text(self, item: Mapping[str, Any]) -> bool:
        """Fast path: adds the text of a choice if it has text only; returns whether it did."""
        delta = item.get("delta") if item else None
        if not delta or item.get("finish_reason") or item.get("logprobs") or not item.keys() <= USUAL:
            return False
        field = text_field(delta)
        if not field:
            return False
        self._text_index = index = self._index(item, 0)
        choice = self._changed.get(index) or self._mark_changed(index)
        if field == CONTENT:
            choice.add_text(delta[field])
        else:
            choice.add_reasoning(delta[field], field)
        self.is_complete = False  # the choice goes on, even after a finish reason
        return True

    def _index(self, item: Mapping[str, Any], position: int) -> int:
        return 0 if self._n == 1 else answer.index_of(item, position)

    def _read(self, choices: Any, source: lenient_json.Source) -> None:
        for position, item in enumerate(choices):
            if item is not None:
                index = self._index(item, position)
                choice = self._changed.get(index) or self._mark_changed(index)
                choice.read(item, source, "choices", position)
        self.is_complete = self._have_finished()

    def _mark_changed(self, index: int) -> ChoiceReader:
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = ChoiceReader(index, self._expected)
            choice.deltas.is_repaired = self._is_repaired
        self._changed[index] = choice
        return choice

    def _have_finished(self) -> bool:
        """Returns whether every choice has finished successfully."""
        for choice in self._choices.values():
            if choice.reason is None or not choice.has_finished(done=False):
                return False
        return len(self._choices) >= self._n

    def _end(self) -> None:
        """Finishes every choice that succeeded, and determines whether the answer is complete."""
        self.is_complete = False
        ended = [choice for choice in self._choices.values() if choice.has_finished(done=self._done)]
        are_all = bool(ended) and len(ended) == len(self._choices) and (self._done or len(ended) >= self._n)
        try:
            if are_all:
                answer.require_output(ended, self._expected)
            for choice in ended:
                choice.end()
            self.is_complete = are_all
        except MalformedResponse as error:
            self._fail(error)
        self._changed = dict(self._choices)

    def _drain(self) -> ChatCompletionChunk | None:
        touched, self._changed = self._changed, {}
        chunk: ChatCompletionChunk | None = None
        for choice in touched.values():
            drained = choice.deltas.drain()
            if chunk is None:
                chunk = drained
            else:
                chunk.MergeFrom(drained)
            self.started = self.started or choice.has_output or choice.reason is not None
        chunk = chunk or ChatCompletionChunk()
        counted = self._usage.drain(last=self.ended) if self._usage.is_due or self.ended else None
        if not (chunk.choices or counted or (self._metadata.are_due and self.ended)):
            return None
        if counted:
            chunk.usage.CopyFrom(counted)
        if self._metadata.are_due:
            self._metadata.drain(chunk)
        return chunk


class _Usage:
    """The latest usage, wherever the vendor sends it. Counts are cumulative.

    Exception: llama.cpp sends the usage of each of several choices in a separate event; these are added up.
    """

    __slots__ = ("_alone", "_latest", "_n", "is_due")

    def __init__(self, n: int) -> None:
        self.is_due = False
        self._n = n
        self._alone: Usage | None = None
        self._latest: Usage | None = None

    def read(self, event: Mapping[str, Any], source: lenient_json.Source) -> None:
        choices = event.get("choices")
        if event.get("usage"):
            self._record(usage(event["usage"], source, "usage"), alone=not choices)
        elif "x_groq" in event or (choices and choices[0] and "usage" in choices[0]):
            self._record(answer.hidden_usage(event, source), alone=False)

    def drain(self, *, last: bool) -> Usage | None:
        """Returns the usage if it has changed; with the last chunk (`last`) the final usage, even if unchanged."""
        due = self._latest if last or self.is_due else None
        self.is_due = False
        return due

    def _record(self, counted: Usage | None, *, alone: bool) -> None:
        if counted is None or (self._alone and not alone):
            return
        if alone and self._n > 1:
            if self._alone:
                counted.completion_tokens += self._alone.completion_tokens
                counted.total_tokens = counted.prompt_tokens + counted.completion_tokens
            self._alone = counted
        self._latest, self.is_due = counted, True


class _Metadata:
    """Fields of the response outside of its choices; a value is emitted once, and again when it changes."""

    __slots__ = ("_due", "_extra", "_hidden_fields", "_known", "are_due")

    def __init__(self, hidden_fields: AbstractSet[str]) -> None:
        self.are_due = False
        self._hidden_fields = hidden_fields
        self._known: dict[str, Any] = {}
        self._due: Mapping[str, Any] = _NOTHING
        self._extra: dict[str, Any] | None = None

    def are_known(self, event: Mapping[str, Any]) -> bool:
        """Returns whether fingerprint and tier of an event are unchanged."""
        fingerprint, tier, known = event.get("system_fingerprint"), event.get("service_tier"), self._known
        is_known = not fingerprint or fingerprint == known.get("system_fingerprint")
        return is_known and (not tier or tier == known.get("service_tier"))

    def read(self, event: Mapping[str, Any], source: lenient_json.Source) -> None:
        known = self._known
        for name in answer.METADATA_FIELDS:
            value = event.get(name)
            if value and value != known.get(name):
                known[name] = value
                self._due = {**self._due, name: value}
                self.are_due = True
        if not event.keys() <= answer.KNOWN:
            self._read_unknown(source.unknown(event, answer.KNOWN | self._hidden_fields))

    def drain(self, chunk: ChatCompletionChunk) -> None:
        answer.copy_metadata(chunk, self._due)
        if self._extra:
            chunk.extra_json = extra_fields.dumps(self._extra)
        self._due, self._extra, self.are_due = _NOTHING, None, False

    def _read_unknown(self, fields: Mapping[str, Any]) -> None:
        extra = self._extra or {}
        for name, value in fields.items():
            if name not in self._known or self._known[name] != value:
                self._known[name] = extra[name] = value
                self._extra = extra
                self.are_due = True
