"""The deltas of a streamed choice, each with one text at most, and the places of that text."""

from collections.abc import Iterator
from itertools import count
from typing import Any, NamedTuple

from parley.core.guards.texts import without_media
from parley.core.messages.extra_fields import dumps
from parley.core.messages.proto_json import from_struct
from parley.guard.v1 import guard_pb2 as guard
from parley.guard.v1.guard_pb2 import Unit
from parley.v1.message_pb2 import ChunkChoice, Delta, ToolCallDelta

_numbers = count()
_TEXTS = {
    "reasoning_content": guard.KIND_REASONING,
    "content": guard.KIND_CONTENT,
    "refusal": guard.KIND_REFUSAL,
}


class Place(NamedTuple):
    """Where a text of a choice is appended: texts of one place are parts of one text.

    Attributes:
        kind: What the text is.
        number: The position of the tool call; -1 without one. For OTHER a number that no other text has.
    """

    kind: guard.Kind.ValueType
    number: int = -1

    @property
    def is_joined(self) -> bool:
        """Whether later texts of the place continue this one."""
        return self.kind != guard.KIND_OTHER

    def unit(self, text: str, offset: int, tool_name: str) -> Unit:
        """Returns the text as a guard receives it."""
        unit = Unit(kind=self.kind, text=text, role="assistant", offset=offset)
        if self.kind == guard.KIND_TOOL_ARGUMENTS:
            unit.tool_name = tool_name
            if self.number >= 0:
                unit.tool_call = self.number
        return unit


TEXT_PLACES = {name: Place(kind) for name, kind in _TEXTS.items()}
"""The places of the texts that deltas have themselves, by field."""


class HeldDelta:
    """A delta that is held back.

    Attributes:
        place: The place of its text; None if it has no text.
        text: The text.
        choice: The delta with the rest of its chunk.
        carrier: The part of a later delta whose unknown fields are the text; None for a text of this delta.
    """

    __slots__ = ("carrier", "choice", "place", "text")

    def __init__(self, choice: ChunkChoice, place: Place | None = None, text: str = "", carrier: Any = None) -> None:
        self.choice = choice
        self.place = place
        self.text = text
        self.carrier = carrier

    @property
    def repeats(self) -> bool:
        """Whether the text is unknown fields that may repeat other texts of the choice: those of a tool call do not."""
        is_other = self.place is not None and not self.place.is_joined
        return is_other and (self.carrier is None or isinstance(self.carrier, ChunkChoice))

    def try_append(self, later: "HeldDelta") -> bool:
        """Appends the text of a later delta if both have the same place, and the later one nothing else."""
        if self.place != later.place or self.place is None or not self.place.is_joined:
            return False
        if self.choice.HasField("logprobs") or later.choice.HasField("logprobs") or _identifies(later.choice.delta):
            return False
        self.text += later.text
        return True

    @property
    def tool_name(self) -> str:
        """The name of the tool or function, in the first delta of a call; otherwise empty."""
        delta = self.choice.delta
        for call in delta.tool_calls:
            return call.function.name or call.custom.name
        return delta.function_call.name

    def split(self, length: int) -> "HeldDelta":
        """Removes the first code points, and returns a delta that has them and nothing else."""
        first, self.choice = self.choice, ChunkChoice(index=self.choice.index, delta=Delta())
        if first.delta.tool_calls:
            call = self.choice.delta.tool_calls.add(index=first.delta.tool_calls[0].index)
            if first.delta.tool_calls[0].HasField("custom"):
                call.custom.SetInParent()
        head, self.text = HeldDelta(first, self.place, self.text[:length]), self.text[length:]
        return head

    def released(self, text: str) -> ChunkChoice | None:
        """Returns the chunk with this text; None if nothing is left of it."""
        delta = self.choice.delta
        if self.carrier is not None:
            if not text:
                self.carrier.ClearField("extra_json")
            return None
        if self.place is None:
            return self.choice
        _set(delta, self.place.kind, text)
        has_more = self.choice.HasField("logprobs") or self.choice.HasField("finish_reason")
        return self.choice if text or has_more or _identifies(delta) else None


def split_choice(choice: ChunkChoice) -> Iterator[HeldDelta]:
    """Splits the chunk of a choice into deltas with one text at most, in the order in which models write them."""
    deltas = list(_split(choice))
    if choice.HasField("logprobs"):
        if not deltas:
            deltas.append(HeldDelta(ChunkChoice(index=choice.index)))
        deltas[0].choice.logprobs.CopyFrom(choice.logprobs)
    yield from deltas
    if choice.HasField("finish_reason") or choice.HasField("extra_json"):
        last = ChunkChoice()
        last.CopyFrom(choice)
        last.ClearField("delta")
        last.ClearField("logprobs")
        yield from _unknown_fields(last, last)
        yield HeldDelta(last)


def _split(choice: ChunkChoice) -> Iterator[HeldDelta]:
    delta = choice.delta
    for name, place in TEXT_PLACES.items():
        if text := getattr(delta, name):
            yield HeldDelta(ChunkChoice(index=choice.index, delta=Delta()), place, text)
    for call in delta.tool_calls:
        text = call.custom.input if call.HasField("custom") else call.function.arguments
        place = Place(guard.KIND_TOOL_ARGUMENTS, call.index)
        part = ChunkChoice(index=choice.index, delta=Delta(tool_calls=[call]))
        own = part.delta.tool_calls[0]
        yield from _unknown_fields(part, own, own.function, own.custom)
        yield HeldDelta(part, place, text)
    if delta.HasField("function_call"):
        part = ChunkChoice(index=choice.index, delta=Delta(function_call=delta.function_call))
        yield from _unknown_fields(part, part.delta.function_call)
        yield HeldDelta(part, Place(guard.KIND_TOOL_ARGUMENTS), delta.function_call.arguments)
    if delta.HasField("audio"):
        part = ChunkChoice(index=choice.index, delta=Delta(audio=delta.audio))
        yield from _unknown_fields(part, part.delta.audio)
        yield HeldDelta(part, Place(guard.KIND_TRANSCRIPT), delta.audio.transcript)
    if delta.annotations:
        text = dumps([from_struct(one) for one in delta.annotations])
        part = ChunkChoice(index=choice.index, delta=Delta(annotations=delta.annotations))
        yield HeldDelta(part, _other(), text)
    if delta.extra_json:
        part = ChunkChoice(index=choice.index, delta=Delta(extra_json=delta.extra_json))
        text = without_media(delta.extra_json)
        yield HeldDelta(part, _other() if text else None, text)


def _other() -> Place:
    return Place(guard.KIND_OTHER, next(_numbers))


def _unknown_fields(part: ChunkChoice, *carriers: Any) -> Iterator[HeldDelta]:
    """Yields the unknown fields of parts of a delta, to be checked before it."""
    for carrier in carriers:
        if carrier.extra_json:
            yield HeldDelta(ChunkChoice(index=part.index), _other(), carrier.extra_json, carrier)


def _set(delta: Delta, kind: guard.Kind.ValueType, text: str) -> None:
    """Sets the text of a delta that has one text. Unknown fields are kept as a whole, or removed."""
    if kind == guard.KIND_OTHER:
        if not text:
            delta.Clear()
    elif kind == guard.KIND_TRANSCRIPT:
        delta.audio.transcript = text
    elif kind == guard.KIND_TOOL_ARGUMENTS:
        _set_arguments(delta, text)
    else:
        setattr(delta, next(name for name, known in _TEXTS.items() if known == kind), text)


def _set_arguments(delta: Delta, text: str) -> None:
    called: Any = delta.tool_calls[0] if delta.tool_calls else None
    if called is None:
        delta.function_call.arguments = text
    elif called.HasField("custom"):
        called.custom.input = text
    elif text or called.HasField("function"):
        called.function.arguments = text


def _identifies(delta: Delta) -> bool:
    """Returns whether a delta has more than its text: the id and the name of a call, sound, or unknown fields."""
    if delta.HasField("audio"):
        return any(field.name != "transcript" for field, _ in delta.audio.ListFields())
    function = delta.function_call
    return any(_starts(call) for call in delta.tool_calls) or bool(function.name or function.extra_json)


def _starts(call: ToolCallDelta) -> bool:
    called = (call.function, call.custom)
    return bool(call.id or call.extra_json) or any(one.name or one.extra_json for one in called)
