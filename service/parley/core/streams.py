"""The shape of a streamed answer: what comes first, and what comes last.

A backend's chunks come in the backend's own way. A caller sees, for each choice: one chunk with the role and empty
content, then deltas, then one chunk with `finish_reason` and an empty delta; at the end of all one chunk without
choices that has the usage. All chunks share `id`, `created` and `model`, and count up in `sequence`.
"""

import time
from collections.abc import Iterator

from google.protobuf.struct_pb2 import Struct

from parley.core import ids
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk
from parley.v1.message_pb2 import ChunkChoice, Delta, Usage


class StreamShaper:
    """Brings a backend's chunks into the documented sequence, and stamps them as `answer` is stamped."""

    def __init__(self, answer: ChatCompletion) -> None:
        self._stamp = ChatCompletionChunk(
            id=answer.id, object="chat.completion.chunk", created=answer.created, model=answer.model
        )
        for field in ("session_id", "system_fingerprint", "service_tier"):
            if answer.HasField(field):
                setattr(self._stamp, field, getattr(answer, field))
        self._begun: set[int] = set()
        self._sequence = 0
        self._usage: Usage | None = answer.usage if answer.HasField("usage") else None
        self._moderation: Struct | None = answer.moderation if answer.HasField("moderation") else None

    def shape(self, chunk: ChatCompletionChunk) -> list[ChatCompletionChunk]:
        """Returns what the caller sees for one chunk of the backend; the chunk itself may become part of it."""
        if self._is_plain(chunk):
            return [self._stamped(chunk)]
        if chunk.HasField("usage"):
            self._usage = chunk.usage
        if chunk.HasField("moderation"):
            self._moderation = chunk.moderation
        for field in ("system_fingerprint", "service_tier"):
            if chunk.HasField(field):
                setattr(self._stamp, field, getattr(chunk, field))
        return [shaped for choice in chunk.choices for shaped in self._choice(choice)]

    def end(self) -> ChatCompletionChunk:
        """Returns the last chunk: no choices, the usage, and what moderation found."""
        last = self._stamped(ChatCompletionChunk(moderation=self._moderation))
        if self._usage is not None:
            last.usage.CopyFrom(self._usage)
        return last

    def _is_plain(self, chunk: ChatCompletionChunk) -> bool:
        """Tells whether this is more text of one choice and nothing else, as nearly every chunk is."""
        if len(chunk.choices) != 1 or len(chunk.ListFields()) != 1:
            return False
        choice = chunk.choices[0]
        if choice.index not in self._begun or choice.HasField("finish_reason"):
            return False
        return bool(choice.delta.content) and not choice.delta.HasField("role")

    def _choice(self, choice: ChunkChoice) -> Iterator[ChatCompletionChunk]:
        if choice.index not in self._begun:
            self._begun.add(choice.index)
            yield self._only(choice.index, Delta(role="assistant", content=""))
        delta = choice.delta
        delta.ClearField("role")
        has_logprobs = bool(choice.logprobs.content or choice.logprobs.refusal)
        if has_logprobs or not _says_nothing(delta):
            said = self._only(choice.index, delta)
            if has_logprobs:
                said.choices[0].logprobs.CopyFrom(choice.logprobs)
            yield said
        if choice.HasField("finish_reason"):
            last = self._only(choice.index, None)
            last.choices[0].finish_reason = choice.finish_reason
            yield last

    def _only(self, index: int, delta: Delta | None) -> ChatCompletionChunk:
        chunk = self._stamped(ChatCompletionChunk())
        choice = chunk.choices.add(index=index)
        if delta is None:
            choice.delta.SetInParent()
        else:
            choice.delta.CopyFrom(delta)
        return chunk

    def _stamped(self, chunk: ChatCompletionChunk) -> ChatCompletionChunk:
        chunk.MergeFrom(self._stamp)
        chunk.sequence = self._sequence
        self._sequence += 1
        return chunk


def _says_nothing(delta: Delta) -> bool:
    """Tells whether a delta is empty, or only an empty text, as backends send beside the role or the finish reason."""
    return not delta.ListFields() or (len(delta.ListFields()) == 1 and delta.HasField("content") and not delta.content)


def speaks(choice: ChunkChoice) -> bool:
    """Tells whether there is a token in a backend's piece of an answer, or its end, and not only the role."""
    return choice.HasField("finish_reason") or any(
        value for field, value in choice.delta.ListFields() if field.name != "role"
    )


def stamp(completion: ChatCompletion, model: str, session_id: str | None) -> None:
    """Sets what a whole answer has from us and not from the backend."""
    completion.id = ids.completion_id()
    completion.object = "chat.completion"
    completion.created = int(time.time())
    completion.model = model
    if session_id is not None:
        completion.session_id = session_id
