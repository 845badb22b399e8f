"""The documented sequence of a stream's chunks.

Backends send chunks of any shape. A caller receives, for each choice: one chunk with the role, deltas, and one chunk
with `finish_reason` and an empty delta. The last chunk of the stream has no choices and has the usage. Each delta is of
one kind (text, reasoning, a refusal, one tool call, audio, annotations), because many clients read only one per chunk.
The first chunk has empty content if text follows, and no content before any other kind. All chunks have the same `id`,
`created` and `model`; `sequence` counts them from 0.
"""

import time
from typing import Literal

from google.protobuf.struct_pb2 import Struct

from parley.core.messages import ids
from parley.core.messages.extra_fields import merge_text
from parley.core.messages.text_completion import TextCompletion
from parley.core.ports.plain_text import Batch, PlainText
from parley.core.streaming.plain_text import as_chunk
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk
from parley.v1.message_pb2 import ChunkChoice, Delta, Usage

_TEXTS = ("reasoning_content", "content", "refusal")
_OBJECTS: tuple[Literal["function_call", "audio"], ...] = ("function_call", "audio")
_NO_OUTPUT = frozenset({"role", "extra", "extra_json"})
_CHANGING: tuple[Literal["system_fingerprint", "service_tier"], ...] = ("system_fingerprint", "service_tier")
_NONE: frozenset[int] = frozenset()
_FIRST = frozenset({0})  # a set takes 0.2 KB, of each stream
_NOTHING, _ROLE, _ROLE_OF_TEXT = Delta(), Delta(role="assistant"), Delta(role="assistant", content="")


class StreamShaper:
    """Converts a backend's chunks to the documented sequence.

    Args:
        answer: The stamped completion; its id, time, model, session and usage go into the chunks.
    """

    __slots__ = ("_extra", "_moderation", "_sequence", "_stamp", "_started", "_usage")

    def __init__(self, answer: ChatCompletion) -> None:
        stamp = ChatCompletionChunk(
            id=answer.id, object="chat.completion.chunk", created=answer.created, model=answer.model
        )
        if answer.HasField("session_id"):
            stamp.session_id = answer.session_id
        for field in _CHANGING:
            if answer.HasField(field):
                setattr(stamp, field, getattr(answer, field))
        self._stamp = stamp.SerializeToString()  # a message takes 0.5 KB of each stream
        self._started = _NONE
        self._sequence = 0
        self._extra = answer.extra_json  # unknown fields for the next chunk
        self._usage: Usage | None = answer.usage if answer.HasField("usage") else None
        self._moderation: Struct | None = answer.moderation if answer.HasField("moderation") else None

    def shape_text(self, text: PlainText) -> Batch:
        """Returns what the caller receives for plain text; almost always the same, stamped."""
        if 0 not in self._started or self._extra:
            return self.shape(as_chunk(text))
        text.stamp, text.sequence = self._stamp, self._sequence
        self._sequence += 1
        return text

    def shape(self, chunk: ChatCompletionChunk) -> list[ChatCompletionChunk]:
        """Returns the caller's chunks for one chunk of the backend, which may be reused and modified."""
        if not self._extra and self._is_text_only(chunk):
            return [self._stamped(chunk)]
        if chunk.HasField("usage"):
            self._usage = chunk.usage
        if chunk.HasField("moderation"):
            self._moderation = chunk.moderation
        for field in _CHANGING:
            if chunk.HasField(field):
                self._change_stamp(field, getattr(chunk, field))
        shaped: list[ChatCompletionChunk] = []
        for choice in chunk.choices:
            self._shape_choice(choice, shaped)
        if chunk.extra_json or self._extra:
            self._add_extra(chunk.extra_json, shaped)
        return shaped

    def end(self) -> ChatCompletionChunk:
        """Returns the last chunk, with the usage and the result of moderation."""
        last = self._stamped(ChatCompletionChunk(moderation=self._moderation, extra_json=self._extra or None))
        if self._usage is not None:
            last.usage.CopyFrom(self._usage)
        return last

    def _is_text_only(self, chunk: ChatCompletionChunk) -> bool:
        """Reports whether a chunk has only further text of one choice, as nearly every chunk does."""
        if len(chunk.choices) != 1 or len(chunk.ListFields()) != 1:
            return False
        choice = chunk.choices[0]
        if choice.index not in self._started or choice.HasField("finish_reason"):
            return False
        return bool(choice.delta.content) and not choice.delta.HasField("role")

    def _shape_choice(self, choice: ChunkChoice, shaped: list[ChatCompletionChunk]) -> None:
        """Appends the caller's chunks for a choice to `shaped`."""
        deltas = _split_by_kind(choice)
        is_end = choice.HasField("finish_reason")
        if (deltas or is_end) and choice.index not in self._started:
            self._started = _FIRST if choice.index == 0 and not self._started else self._started | {choice.index}
            shaped.append(self._chunk_with(choice.index, _role_delta(deltas)))
        for index, delta in enumerate(deltas):
            made = self._chunk_with(choice.index, delta)
            if index == 0:
                _copy(choice, made.choices[0], "logprobs")
            if index == len(deltas) - 1 and not is_end:
                _copy(choice, made.choices[0], "extra_json")
            shaped.append(made)
        if is_end:
            last = self._chunk_with(choice.index, _NOTHING)
            _copy(choice, last.choices[0], "finish_reason", "extra_json")
            shaped.append(last)

    def _change_stamp(self, field: Literal["system_fingerprint", "service_tier"], value: str) -> None:
        stamp = ChatCompletionChunk.FromString(self._stamp)
        setattr(stamp, field, value)
        self._stamp = stamp.SerializeToString()

    def _chunk_with(self, index: int, delta: Delta) -> ChatCompletionChunk:
        chunk = ChatCompletionChunk.FromString(self._stamp)
        chunk.sequence = self._sequence
        self._sequence += 1
        chunk.choices.add(index=index).delta.CopyFrom(delta)
        return chunk

    def _add_extra(self, more: str, shaped: list[ChatCompletionChunk]) -> None:
        """Adds unknown fields to the last of the chunks; without chunks, keeps them for the next one."""
        self._extra = merge_text(self._extra, more)
        if shaped:
            shaped[-1].extra_json, self._extra = self._extra, ""

    def _stamped(self, chunk: ChatCompletionChunk) -> ChatCompletionChunk:
        chunk.MergeFromString(self._stamp)
        chunk.sequence = self._sequence
        self._sequence += 1
        return chunk


def _split_by_kind(choice: ChunkChoice) -> list[Delta]:
    """Splits the delta of a choice into deltas of one kind, in the order in which models generate them.

    An empty delta, as beside a role or a finish reason, is omitted unless it has unknown fields or token probabilities.
    """
    delta = choice.delta
    fields = delta.ListFields()
    if len(fields) == 1 and fields[0][1] and fields[0][0].name in _TEXTS:  # nearly every delta
        return [delta]
    deltas = _split(delta) if fields else []
    if not deltas and (delta.extra_json or choice.extra_json or choice.HasField("logprobs")):
        deltas.append(Delta())
    if delta.extra_json:
        deltas[-1].extra_json = delta.extra_json
    return deltas


def _split(delta: Delta) -> list[Delta]:
    """Returns the parts of a delta without its unknown fields."""
    deltas = [Delta(**{kind: getattr(delta, kind)}) for kind in _TEXTS if getattr(delta, kind)]
    deltas += [Delta(tool_calls=[call]) for call in delta.tool_calls]
    for kind in _OBJECTS:
        if delta.HasField(kind):
            deltas.append(Delta(**{kind: getattr(delta, kind)}))
    if delta.annotations:
        deltas.append(Delta(annotations=delta.annotations))
    return deltas


def _role_delta(deltas: list[Delta]) -> Delta:
    """Returns the delta with the role, which precedes these."""
    is_text = not deltas or deltas[0].content or not deltas[0].ListFields()
    return _ROLE_OF_TEXT if is_text else _ROLE


def _copy(choice: ChunkChoice, to: ChunkChoice, *fields: Literal["logprobs", "finish_reason", "extra_json"]) -> None:
    for field in fields:
        if not choice.HasField(field):
            continue
        if field == "logprobs":
            to.logprobs.CopyFrom(choice.logprobs)
        else:
            setattr(to, field, getattr(choice, field))


def has_output(choice: ChunkChoice) -> bool:
    """Reports whether a backend's chunk has output or a finish reason; a role and unknown fields are neither."""
    if choice.delta.content or choice.HasField("finish_reason"):
        return True
    return any(value for field, value in choice.delta.ListFields() if field.name not in _NO_OUTPUT)


def stamp(completion: ChatCompletion | TextCompletion, model: str, session_id: str | None) -> None:
    """Sets the fields of a completion that Parley assigns: id, object type, time, model and session."""
    completion.id = ids.completion_id()
    completion.object = "chat.completion"
    completion.created = int(time.time())
    completion.model = model
    if session_id is not None:
        completion.session_id = session_id
