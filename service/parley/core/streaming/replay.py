"""Splitting of a completion into the chunks of a stream, for idempotent replays and for backends that do not stream."""

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

_MAX_TEXT = 4096  # characters in one chunk
_MAX_TOKENS = 64  # token probabilities in one chunk, each with up to 20 alternatives


def completion_to_chunks(completion: ChatCompletion) -> Iterator[list[ChatCompletionChunk]]:
    """Splits a stamped completion into the documented sequence of chunks, each of at most 4,096 characters."""
    shaper = StreamShaper(completion)
    for choice in completion.choices:
        for chunk in choice_chunks(choice):
            yield shaper.shape(ChatCompletionChunk(choices=[chunk]))
    yield [shaper.end()]


def choice_chunks(choice: Choice) -> Iterator[ChunkChoice]:
    """Splits a choice into deltas of one kind each, and a last chunk with the finish reason."""
    message = choice.message
    for text in _split(message.reasoning_content):
        yield _choice_chunk(choice, Delta(reasoning_content=text))
    for text in _split(message.refusal):
        yield _choice_chunk(choice, Delta(refusal=text))
    for text, logprobs in zip_longest(_split(message.content.string_value), _batches(choice.logprobs)):
        chunk = _choice_chunk(choice, Delta(content=text))
        if logprobs is not None:
            chunk.logprobs.CopyFrom(logprobs)
        yield chunk
    for index, call in enumerate(message.tool_calls):
        for part in _call_deltas(index, call):
            yield _choice_chunk(choice, Delta(tool_calls=[part]))
    yield _choice_chunk(choice, _other_fields(message))
    last = _choice_chunk(choice, Delta())
    if choice.HasField("finish_reason"):
        last.finish_reason = choice.finish_reason
    if choice.HasField("extra_json"):
        last.extra_json = choice.extra_json
    yield last


def _other_fields(message: Message) -> Delta:
    rest = Delta(annotations=message.annotations)
    if message.HasField("function_call"):
        call = message.function_call
        rest.function_call.name, rest.function_call.arguments = call.name, call.arguments
        _copy_extra(call, rest.function_call)
    if message.HasField("audio"):
        rest.audio.CopyFrom(message.audio)
    _copy_extra(message, rest)
    return rest


def _call_deltas(index: int, call: ToolCall) -> Iterator[ToolCallDelta]:
    """Yields a delta with id, type and name, then deltas with arguments."""
    first = ToolCallDelta(index=index, id=call.id, type=call.type)
    _copy_extra(call, first)
    if call.HasField("custom"):
        first.custom.name, first.custom.input = call.custom.name, ""
        _copy_extra(call.custom, first.custom)
    elif call.HasField("function"):
        first.function.name, first.function.arguments = call.function.name, ""
        _copy_extra(call.function, first.function)
    yield first
    for text in _split(call.custom.input):
        yield ToolCallDelta(index=index, custom=CustomCallDelta(input=text))
    for text in _split(call.function.arguments):
        yield ToolCallDelta(index=index, function=FunctionCallDelta(arguments=text))


def _copy_extra(source: Any, to: Any) -> None:
    """Copies unknown fields."""
    if source.HasField("extra_json"):
        to.extra_json = source.extra_json


def _choice_chunk(choice: Choice, delta: Delta) -> ChunkChoice:
    return ChunkChoice(index=choice.index, delta=delta)


def _split(text: str) -> Iterator[str]:
    return (text[start : start + _MAX_TEXT] for start in range(0, len(text), _MAX_TEXT))


def _batches(logprobs: Logprobs) -> Iterator[Logprobs]:
    count = max(len(logprobs.content), len(logprobs.refusal))
    extra = logprobs.extra_json or None
    for start in range(0, count or bool(extra), _MAX_TOKENS):
        batch = slice(start, start + _MAX_TOKENS)
        yield Logprobs(content=logprobs.content[batch], refusal=logprobs.refusal[batch], extra_json=extra)
        extra = None
