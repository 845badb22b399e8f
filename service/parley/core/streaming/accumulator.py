"""A streamed answer, joined into the whole that it makes.

Fields that Parley does not know are joined as `extra_fields.merge` says: arrays are appended, objects merged, other
values replaced by later ones. Text in them is not concatenated: no vendor documents that.
"""

from typing import Any

from google.protobuf.struct_pb2 import NULL_VALUE

from parley.core.errors import StreamBroken
from parley.core.messages.extra_fields import merge_text
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

LARGEST = 64 * 1024 * 1024  # bytes of an answer; a backend's whole answers have the same bound
_TEXTS = ("content", "refusal", "reasoning_content")


class AnswerJoiner:
    """Joins the chunks of a stream into `answer`, which is stamped and still empty; up to `largest` bytes of them."""

    def __init__(self, answer: ChatCompletion, largest: int = LARGEST) -> None:
        self._answer = answer
        self._largest = largest
        self._size = 0
        self._choices: dict[int, ChoiceJoiner] = {}

    def add(self, chunk: ChatCompletionChunk) -> None:
        """Takes in a chunk that is not shaped yet. Raises StreamBroken where the answer becomes too large."""
        self._size += chunk.ByteSize()
        if self._size > self._largest:
            bound = f"{self._largest // (1024 * 1024)} MiB"
            raise StreamBroken(f'The answer of the model "{self._answer.model}" is larger than {bound}; ask for less')
        for choice in chunk.choices:
            joiner = self._choices.get(choice.index)
            if joiner is None:
                joiner = self._choices[choice.index] = ChoiceJoiner()
            joiner.add(choice)
        if chunk.HasField("usage"):
            self._answer.usage.CopyFrom(chunk.usage)
        if chunk.HasField("moderation"):
            self._answer.moderation.CopyFrom(chunk.moderation)
        if chunk.HasField("system_fingerprint"):
            self._answer.system_fingerprint = chunk.system_fingerprint
        if chunk.HasField("service_tier"):
            self._answer.service_tier = chunk.service_tier
        _add_extra(self._answer, chunk)

    def completion(self) -> ChatCompletion:
        """Returns what has been said so far, of all choices."""
        del self._answer.choices[:]
        for index, joiner in sorted(self._choices.items()):
            self._answer.choices.append(joiner.choice(index))
        return self._answer


class ChoiceJoiner:
    """Joins what is said of one choice."""

    def __init__(self) -> None:
        self._choice = Choice(message=Message(role="assistant"))
        self._texts: dict[str, list[str]] = {name: [] for name in _TEXTS}
        self._calls: dict[int, ToolCall] = {}

    def add(self, choice: ChunkChoice) -> None:
        """Adds a piece."""
        delta = choice.delta
        if delta.content:
            self._texts["content"].append(delta.content)
        if choice.HasField("finish_reason"):
            self._choice.finish_reason = choice.finish_reason
        if choice.HasField("logprobs"):
            join_logprobs(self._choice.logprobs, choice.logprobs)
        _add_extra(self._choice, choice)
        if len(delta.ListFields()) > delta.HasField("content"):
            self._add_rare(delta)

    def _add_rare(self, delta: Delta) -> None:
        for name in ("refusal", "reasoning_content"):
            if delta.HasField(name):
                self._texts[name].append(getattr(delta, name))
        message = self._choice.message
        if delta.HasField("function_call"):
            _join_function(message.function_call, delta.function_call)
        if delta.HasField("audio"):
            join_audio(message.audio, delta.audio)
        message.annotations.extend(delta.annotations)
        _add_extra(message, delta)
        for piece in delta.tool_calls:
            _join_call(self._calls.setdefault(piece.index, ToolCall(type="function")), piece)

    def choice(self, index: int) -> Choice:
        """Returns what has been said so far."""
        made = Choice()
        made.CopyFrom(self._choice)
        made.index = index
        for name, pieces in self._texts.items():
            text = "".join(pieces)
            if text and name == "content":
                made.message.content.string_value = text
            elif text:
                setattr(made.message, name, text)
        made.message.tool_calls.extend(call for _, call in sorted(self._calls.items()))
        if made.HasField("finish_reason") and not made.message.HasField("content"):
            _set_no_content(made.message)
        return made


def _set_no_content(message: Message) -> None:
    """Sets the content of an answer without text: null beside what stands in its place, else empty."""
    if message.tool_calls or message.HasField("function_call") or message.refusal or message.HasField("audio"):
        message.content.null_value = NULL_VALUE
    else:
        message.content.string_value = ""


def _join_function(call: FunctionCall, piece: FunctionCallDelta) -> None:
    call.name = piece.name or call.name
    call.arguments += piece.arguments
    _add_extra(call, piece)


def join_logprobs(logprobs: Logprobs, piece: Logprobs) -> None:
    """Adds the probabilities of the tokens that follow."""
    logprobs.content.extend(piece.content)
    logprobs.refusal.extend(piece.refusal)
    _add_extra(logprobs, piece)


def _join_call(call: ToolCall, piece: ToolCallDelta) -> None:
    call.id = piece.id or call.id
    call.type = piece.type or call.type
    if piece.HasField("function"):
        _join_function(call.function, piece.function)
    if piece.HasField("custom"):
        call.custom.name = piece.custom.name or call.custom.name
        call.custom.input += piece.custom.input
        _add_extra(call.custom, piece.custom)
    _add_extra(call, piece)


def _add_extra(to: Any, piece: Any) -> None:
    """Merges the fields of a piece that Parley does not know into those of the whole."""
    if piece.extra_json:
        to.extra_json = merge_text(to.extra_json, piece.extra_json)


def join_audio(audio: Audio, piece: Audio) -> None:
    """Adds a piece of spoken output to what has come of it."""
    audio.id = piece.id or audio.id
    if piece.HasField("expires_at"):
        audio.expires_at = piece.expires_at
    if piece.HasField("data"):
        audio.data += piece.data
    if piece.HasField("transcript"):
        audio.transcript += piece.transcript
    _add_extra(audio, piece)


def said(completion: ChatCompletion) -> Message | None:
    """Returns the first choice's message, which is what a session keeps; None where nothing was said."""
    message = completion.choices[0].message if completion.choices else None
    return message if message is not None and len(message.ListFields()) > 1 else None


def cost(completion: ChatCompletion) -> Usage | None:
    """Returns what an answer cost, where the backend told."""
    return completion.usage if completion.HasField("usage") else None
