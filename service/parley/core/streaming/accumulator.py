"""Accumulation of the chunks of a stream into a completion.

Unknown fields are merged by `extra_fields.merge`: arrays are appended, objects are merged, other values are replaced by
later ones. Text in them is not concatenated, as no vendor documents that.
"""

from typing import Any

from google.protobuf.struct_pb2 import NULL_VALUE

from parley.core.errors import StreamBroken
from parley.core.messages.extra_fields import merge_text
from parley.core.messages.text_completion import TextCompletion
from parley.core.ports.plain_text import PlainText, StreamPart, TextKind
from parley.core.streaming.plain_text import chunk_size
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk
from parley.v1.message_pb2 import (
    Audio,
    Choice,
    ChunkChoice,
    Delta,
    FunctionCall,
    FunctionCallDelta,
    Logprobs,
    Message,
    ToolCall,
    ToolCallDelta,
    Usage,
)

MAX_SIZE = 64 * 1024 * 1024  # bytes of chunks; non-streaming answers of backends have the same limit
_TEXTS = ("content", "refusal", "reasoning_content")


class CompletionAccumulator:
    """Accumulates the chunks of a stream.

    Args:
        answer: The completion to fill: without choices, and stamped if the caller receives it.
        max_size: The largest total size of the chunks, in bytes of protobuf.
    """

    def __init__(self, answer: ChatCompletion, max_size: int = MAX_SIZE) -> None:
        self._answer = answer
        self._max_size = max_size
        self._size = 0
        self._choices: dict[int, ChoiceAccumulator] = {}

    def add(self, part: StreamPart) -> None:
        """Adds a part of a stream, before StreamShaper. Raises StreamBroken if the answer exceeds `max_size`."""
        if isinstance(part, PlainText):
            self._grow(chunk_size(part))
            self._choice(0).add_text(part.kind, part.text)
        else:
            self._add_chunk(part)

    def _add_chunk(self, chunk: ChatCompletionChunk) -> None:
        self._grow(chunk.ByteSize())
        for choice in chunk.choices:
            self._choice(choice.index).add(choice)
        if chunk.HasField("usage"):
            self._answer.usage.CopyFrom(chunk.usage)
        if chunk.HasField("moderation"):
            self._answer.moderation.CopyFrom(chunk.moderation)
        if chunk.HasField("system_fingerprint"):
            self._answer.system_fingerprint = chunk.system_fingerprint
        if chunk.HasField("service_tier"):
            self._answer.service_tier = chunk.service_tier
        _merge_extra(self._answer, chunk)

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > self._max_size:
            bound = f"{self._max_size // (1024 * 1024)} MiB"
            raise StreamBroken(f'The answer of the model "{self._answer.model}" is larger than {bound}; ask for less')

    def _choice(self, index: int) -> "ChoiceAccumulator":
        found = self._choices.get(index)
        if found is None:
            found = self._choices[index] = ChoiceAccumulator()
        return found

    def completion(self) -> ChatCompletion:
        """Returns the answer so far."""
        del self._answer.choices[:]
        for index, accumulator in sorted(self._choices.items()):
            self._answer.choices.append(accumulator.choice(index))
        return self._answer


class BoundedAccumulator(CompletionAccumulator):
    """Accumulates an answer that nothing but a cache needs: one that exceeds `max_size` has no choices."""

    def add(self, part: StreamPart) -> None:
        """Adds a part, unless the answer exceeds the size."""
        if self._size > self._max_size:
            return
        try:
            super().add(part)
        except StreamBroken:
            self._choices.clear()


class ChoiceAccumulator:
    """Accumulates the deltas of one choice."""

    def __init__(self) -> None:
        self._choice = Choice(message=Message(role="assistant"))
        self._texts: dict[str, list[str]] = {name: [] for name in _TEXTS}
        self._calls: dict[int, ToolCall] = {}

    def add_text(self, kind: TextKind, text: str) -> None:
        """Adds a text of a kind, of a chunk that has nothing else."""
        self._texts[kind].append(text)

    def add(self, choice: ChunkChoice) -> None:
        """Adds a chunk of the choice."""
        delta = choice.delta
        if delta.content:
            self._texts["content"].append(delta.content)
        if choice.HasField("finish_reason"):
            self._choice.finish_reason = choice.finish_reason
        if choice.HasField("logprobs"):
            merge_logprobs(self._choice.logprobs, choice.logprobs)
        _merge_extra(self._choice, choice)
        if len(delta.ListFields()) > delta.HasField("content"):
            self._add_other_fields(delta)

    def _add_other_fields(self, delta: Delta) -> None:
        for name in ("refusal", "reasoning_content"):
            if delta.HasField(name):
                self._texts[name].append(getattr(delta, name))
        message = self._choice.message
        if delta.HasField("function_call"):
            _merge_function(message.function_call, delta.function_call)
        if delta.HasField("audio"):
            merge_audio(message.audio, delta.audio)
        message.annotations.extend(delta.annotations)
        _merge_extra(message, delta)
        for call in delta.tool_calls:
            _merge_call(self._calls.setdefault(call.index, ToolCall(type="function")), call)

    def choice(self, index: int) -> Choice:
        """Returns the choice so far."""
        choice = Choice()
        choice.CopyFrom(self._choice)
        choice.index = index
        for name, parts in self._texts.items():
            text = "".join(parts)
            if text and name == "content":
                choice.message.content.string_value = text
            elif text:
                setattr(choice.message, name, text)
        choice.message.tool_calls.extend(call for _, call in sorted(self._calls.items()))
        if choice.HasField("finish_reason") and not choice.message.HasField("content"):
            _set_no_content(choice.message)
        return choice


def _set_no_content(message: Message) -> None:
    """Sets the content of a finished choice without text: null beside calls, a refusal or audio, else empty."""
    if message.tool_calls or message.HasField("function_call") or message.refusal or message.HasField("audio"):
        message.content.null_value = NULL_VALUE
    else:
        message.content.string_value = ""


def _merge_function(call: FunctionCall, delta: FunctionCallDelta) -> None:
    call.name = delta.name or call.name
    call.arguments += delta.arguments
    _merge_extra(call, delta)


def merge_logprobs(logprobs: Logprobs, delta: Logprobs) -> None:
    """Appends the probabilities of later tokens."""
    logprobs.content.extend(delta.content)
    logprobs.refusal.extend(delta.refusal)
    _merge_extra(logprobs, delta)


def _merge_call(call: ToolCall, delta: ToolCallDelta) -> None:
    call.id = delta.id or call.id
    call.type = delta.type or call.type
    if delta.HasField("function"):
        _merge_function(call.function, delta.function)
    if delta.HasField("custom"):
        call.custom.name = delta.custom.name or call.custom.name
        call.custom.input += delta.custom.input
        _merge_extra(call.custom, delta.custom)
    _merge_extra(call, delta)


def _merge_extra(to: Any, delta: Any) -> None:
    """Merges the unknown fields of a delta."""
    if delta.extra_json:
        to.extra_json = merge_text(to.extra_json, delta.extra_json)


def merge_audio(audio: Audio, delta: Audio) -> None:
    """Appends a delta of audio output."""
    audio.id = delta.id or audio.id
    if delta.HasField("expires_at"):
        audio.expires_at = delta.expires_at
    if delta.HasField("data"):
        audio.data += delta.data
    if delta.HasField("transcript"):
        audio.transcript += delta.transcript
    _merge_extra(audio, delta)


def stored_answer(completion: ChatCompletion | TextCompletion) -> tuple[Message | None, Usage | None]:
    """Returns what a session stores of an answer.

    Returns:
        The first choice's message, None if it has a role only; the usage that the backend reported, if any.
    """
    if isinstance(completion, TextCompletion):
        return completion.stored()
    message = completion.choices[0].message if completion.choices else None
    if message is not None and len(message.ListFields()) <= 1:
        message = None
    return message, reported_usage(completion)


def reported_usage(completion: ChatCompletion) -> Usage | None:
    """Returns the usage that the backend reported, if any."""
    return completion.usage if completion.HasField("usage") else None
