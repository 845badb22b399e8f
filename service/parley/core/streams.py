"""The shape of a streamed answer: what comes first, what comes last, and the whole that the pieces make.

A backend's chunks come in the backend's own way. A caller sees, for each choice: one chunk with the role and empty
content, then deltas, then one chunk with `finish_reason` and an empty delta; at the end of all one chunk without
choices that has the usage. All chunks share `id`, `created` and `model`, and count up in `sequence`.
"""

import time
from collections.abc import Iterator

from google.protobuf.struct_pb2 import Struct

from parley.core import ids
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk
from parley.v1.message_pb2 import ChunkChoice, Delta, Message, ToolCall, ToolCallDelta, Usage


class StreamShaper:
    """Brings a backend's chunks into the documented sequence, and stamps them."""

    def __init__(self, model: str, session_id: str | None) -> None:
        self._stamp = ChatCompletionChunk(
            id=ids.completion_id(), object="chat.completion.chunk", created=int(time.time()), model=model
        )
        if session_id is not None:
            self._stamp.session_id = session_id
        self._begun: set[int] = set()
        self._sequence = 0
        self._usage: Usage | None = None
        self._moderation: Struct | None = None

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


class AnswerJoiner:
    """Joins the deltas of the first choice into the message that the session keeps."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {"content": [], "refusal": [], "reasoning_content": []}
        self._calls: dict[int, ToolCall] = {}
        self._message = Message(role="assistant")

    def add(self, chunk: ChatCompletionChunk) -> None:
        """Takes in a chunk, shaped or not."""
        for choice in chunk.choices:
            if choice.index == 0:
                self._add(choice.delta)

    def message(self) -> Message | None:
        """Returns what has been said so far; None where that is nothing."""
        message = Message()
        message.CopyFrom(self._message)
        for name, pieces in self._texts.items():
            if pieces and name != "content":
                setattr(message, name, "".join(pieces))
        if self._texts["content"]:
            message.content.string_value = "".join(self._texts["content"])
        message.tool_calls.extend(call for _, call in sorted(self._calls.items()))
        return message if len(message.ListFields()) > 1 else None

    def _add(self, delta: Delta) -> None:
        if delta.content:
            self._texts["content"].append(delta.content)
        if delta.refusal:
            self._texts["refusal"].append(delta.refusal)
        if delta.reasoning_content:
            self._texts["reasoning_content"].append(delta.reasoning_content)
        if delta.HasField("function_call"):
            call = self._message.function_call
            call.name += delta.function_call.name
            call.arguments += delta.function_call.arguments
        self._message.annotations.extend(delta.annotations)
        for piece in delta.tool_calls:
            _join_call(self._calls.setdefault(piece.index, ToolCall(type="function")), piece)


def _join_call(call: ToolCall, piece: ToolCallDelta) -> None:
    call.id = piece.id or call.id
    call.type = piece.type or call.type
    if piece.HasField("function"):
        call.function.name += piece.function.name
        call.function.arguments += piece.function.arguments
    if piece.HasField("custom"):
        call.custom.name += piece.custom.name
        call.custom.input += piece.custom.input


def stamp(completion: ChatCompletion, model: str, session_id: str | None) -> None:
    """Sets what a whole answer has from us and not from the backend."""
    completion.id = ids.completion_id()
    completion.object = "chat.completion"
    completion.created = int(time.time())
    completion.model = model
    if session_id is not None:
        completion.session_id = session_id
