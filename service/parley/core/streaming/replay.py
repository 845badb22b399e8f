"""A whole answer, taken apart again into a stream: for those who ask for it once more."""

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from parley.core.streaming.shaper import StreamShaper
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk
from parley.v1.message_pb2 import (
    Choice,
    ChunkChoice,
    CustomCallDelta,
    Delta,
    FunctionCallDelta,
    Logprobs,
    Message,
    ToolCall,
    ToolCallDelta,
)

_PIECE = 4096  # characters of a text in one chunk
_TOKENS = 64  # logprobs in one chunk, each with up to twenty more


def streamed(completion: ChatCompletion) -> Iterator[list[ChatCompletionChunk]]:
    """Takes a stamped answer apart into the documented sequence of a stream, in chunks of a moderate size."""
    shaper = StreamShaper(completion)
    for choice in completion.choices:
        for piece in pieces(choice):
            yield shaper.shape(ChatCompletionChunk(choices=[piece]))
    yield [shaper.end()]


def pieces(choice: Choice) -> Iterator[ChunkChoice]:
    """Takes a choice apart into deltas of one kind, of a moderate size, and its end."""
    message = choice.message
    for text in _cut(message.reasoning_content):
        yield _piece(choice, Delta(reasoning_content=text))
    for text in _cut(message.refusal):
        yield _piece(choice, Delta(refusal=text))
    for text, logprobs in zip_longest(_cut(message.content.string_value), _batches(choice.logprobs)):
        piece = _piece(choice, Delta(content=text))
        if logprobs is not None:
            piece.logprobs.CopyFrom(logprobs)
        yield piece
    for place, call in enumerate(message.tool_calls):
        for part in _call_pieces(place, call):
            yield _piece(choice, Delta(tool_calls=[part]))
    yield _piece(choice, _rest(message))
    last = _piece(choice, Delta())
    if choice.HasField("finish_reason"):
        last.finish_reason = choice.finish_reason
    if choice.HasField("extra_json"):
        last.extra_json = choice.extra_json
    yield last


def _rest(message: Message) -> Delta:
    rest = Delta(annotations=message.annotations)
    if message.HasField("function_call"):
        call = message.function_call
        rest.function_call.name, rest.function_call.arguments = call.name, call.arguments
        _copy_extra(call, rest.function_call)
    if message.HasField("audio"):
        rest.audio.CopyFrom(message.audio)
    _copy_extra(message, rest)
    return rest


def _call_pieces(place: int, call: ToolCall) -> Iterator[ToolCallDelta]:
    """A tool call begins with its id, type and name; the rest is pieces of its arguments."""
    first = ToolCallDelta(index=place, id=call.id, type=call.type)
    _copy_extra(call, first)
    if call.HasField("custom"):
        first.custom.name, first.custom.input = call.custom.name, ""
        _copy_extra(call.custom, first.custom)
    elif call.HasField("function"):
        first.function.name, first.function.arguments = call.function.name, ""
        _copy_extra(call.function, first.function)
    yield first
    for text in _cut(call.custom.input):
        yield ToolCallDelta(index=place, custom=CustomCallDelta(input=text))
    for text in _cut(call.function.arguments):
        yield ToolCallDelta(index=place, function=FunctionCallDelta(arguments=text))


def _copy_extra(of: Any, to: Any) -> None:
    """Copies the fields that Parley does not know."""
    if of.HasField("extra_json"):
        to.extra_json = of.extra_json


def _piece(choice: Choice, delta: Delta) -> ChunkChoice:
    return ChunkChoice(index=choice.index, delta=delta)


def _cut(text: str) -> Iterator[str]:
    return (text[start : start + _PIECE] for start in range(0, len(text), _PIECE))


def _batches(logprobs: Logprobs) -> Iterator[Logprobs]:
    count = max(len(logprobs.content), len(logprobs.refusal))
    extra = logprobs.extra_json or None
    for start in range(0, count or bool(extra), _TOKENS):
        place = slice(start, start + _TOKENS)
        yield Logprobs(content=logprobs.content[place], refusal=logprobs.refusal[place], extra_json=extra)
        extra = None
