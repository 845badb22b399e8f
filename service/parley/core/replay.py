"""A whole answer, taken apart again into a stream: for those who ask for it once more."""

from collections.abc import Iterator
from itertools import zip_longest

from parley.core.streams import StreamShaper
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
        for piece in _pieces(choice):
            yield shaper.shape(ChatCompletionChunk(choices=[piece]))
    yield [shaper.end()]


def _pieces(choice: Choice) -> Iterator[ChunkChoice]:
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
    last = _piece(choice, _rest(message))
    if choice.HasField("finish_reason"):
        last.finish_reason = choice.finish_reason
    yield last


def _rest(message: Message) -> Delta:
    rest = Delta(annotations=message.annotations)
    if message.HasField("function_call"):
        rest.function_call.name = message.function_call.name
        rest.function_call.arguments = message.function_call.arguments
    if message.HasField("audio"):
        rest.audio.CopyFrom(message.audio)
    return rest


def _call_pieces(place: int, call: ToolCall) -> Iterator[ToolCallDelta]:
    """A tool call begins with its id, type and name; the rest is pieces of its arguments."""
    first = ToolCallDelta(index=place, id=call.id, type=call.type)
    if call.HasField("custom"):
        first.custom.name = call.custom.name
        yield first
        for text in _cut(call.custom.input):
            yield ToolCallDelta(index=place, custom=CustomCallDelta(input=text))
        return
    first.function.name = call.function.name
    yield first
    for text in _cut(call.function.arguments):
        yield ToolCallDelta(index=place, function=FunctionCallDelta(arguments=text))


def _piece(choice: Choice, delta: Delta) -> ChunkChoice:
    return ChunkChoice(index=choice.index, delta=delta)


def _cut(text: str) -> Iterator[str]:
    return (text[start : start + _PIECE] for start in range(0, len(text), _PIECE))


def _batches(logprobs: Logprobs) -> Iterator[Logprobs]:
    count = max(len(logprobs.content), len(logprobs.refusal))
    for start in range(0, count, _TOKENS):
        place = slice(start, start + _TOKENS)
        yield Logprobs(content=logprobs.content[place], refusal=logprobs.refusal[place])
