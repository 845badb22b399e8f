"""From the JSON of Anthropic's Messages API to the messages.

What OpenAI's shape has no place for is kept in `extra_json`: of a message as `anthropic_blocks` says, of other objects
under its own name. What has the wrong shape raises Malformed.
(Messages API reference; handling stop reasons.)
"""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from google.protobuf.struct_pb2 import NULL_VALUE, Struct, Value

from parley.backends import anthropic_blocks
from parley.backends.failures import SHAPE_ERRORS, ErrorInBody, Malformed
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk
from parley.v1.message_pb2 import (
    Choice,
    ChunkChoice,
    CompletionTokensDetails,
    FunctionCall,
    Message,
    PromptTokensDetails,
    ToolCall,
    ToolCallDelta,
    Usage,
)

_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "length",  # the vendor's own tools were stopped in mid-turn: there would be more
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_TIERS = {"standard": "default"}
OF_CHOICES = frozenset({"stop_sequence"})
_KNOWN = OF_CHOICES | {"id", "type", "role", "model", "content", "stop_reason", "stop_details", "usage"}
KNOWN_OF_CALLS = frozenset({"type", "id", "name", "input"})
_KNOWN_COUNTS = frozenset(
    {
        "input_tokens",
        "output_tokens",
        "output_tokens_details",
        "cache_read_input_tokens",
        "cache_creation_input_tokens",
        "service_tier",
    }
)


def completion(data: bytes) -> ChatCompletion:
    """Reads a whole answer. Raises Malformed, ErrorInBody."""
    try:
        answer = orjson.loads(data)
        if answer.get("error"):
            raise ErrorInBody(answer)
        cost = answer.get("usage") or {}
        choice = Choice(index=0, message=message(answer), finish_reason=finish_reason(answer.get("stop_reason")))
        add_unknown(choice, answer, OF_CHOICES)
        read = ChatCompletion(choices=[choice], usage=usage(cost), service_tier=tier(cost))
        add_unknown(read, answer, answer.keys() - _KNOWN)
    except SHAPE_ERRORS as error:
        raise Malformed(f"{type(error).__name__}: {error}") from None
    return read


def message(answer: Mapping[str, Any]) -> Message:
    """Reads the blocks of a whole answer. Without text, content is null beside tool calls, else empty."""
    read = Message(role="assistant")
    texts = []
    for block in answer["content"]:
        match block["type"]:
            case "text":
                texts.append(block["text"])
                read.annotations.extend(annotations(block.get("citations")))
            case "thinking":
                read.reasoning_content += block["thinking"]
            case "tool_use":
                read.tool_calls.append(_tool_call(block))
    silent = read.tool_calls and not texts
    read.content.CopyFrom(Value(null_value=NULL_VALUE) if silent else Value(string_value="".join(texts)))
    if words := refusal(answer):
        read.refusal = words
    if fields := anthropic_blocks.unknown_fields(answer["content"]):
        read.extra_json = dumps(fields)
    return read


def finish_reason(stop_reason: str | None) -> str:
    """Returns why the answer ended, in OpenAI's words."""
    return _REASONS.get(stop_reason or "end_turn", "stop")


def refusal(ended: Mapping[str, Any]) -> str | None:
    """Returns why the content was refused, where the API explains it."""
    details = ended.get("stop_details") or {}
    return details.get("explanation") or None


def annotations(citations: Iterable[Mapping[str, Any]] | None) -> list[Struct]:
    """Returns what a text refers to, as the API told it."""
    read = []
    for citation in citations or ():
        read.append(Struct())
        read[-1].update(citation)
    return read


def usage(data: Mapping[str, Any]) -> Usage:
    """Reads what the answer cost. The API counts the tokens of the prompt that its cache had, or got, by themselves."""
    cached, written = data.get("cache_read_input_tokens"), data.get("cache_creation_input_tokens")
    prompt = (data.get("input_tokens") or 0) + (cached or 0) + (written or 0)
    produced = data.get("output_tokens") or 0
    read = Usage(prompt_tokens=prompt, completion_tokens=produced, total_tokens=prompt + produced)
    if cached is not None or written is not None:
        details = PromptTokensDetails(cached_tokens=cached, cache_write_tokens=written)
        read.prompt_tokens_details.CopyFrom(details)
    thought = (data.get("output_tokens_details") or {}).get("thinking_tokens")
    if thought is not None:
        read.completion_tokens_details.CopyFrom(CompletionTokensDetails(reasoning_tokens=thought))
    add_unknown(read, data, data.keys() - _KNOWN_COUNTS)
    return read


def add_unknown(
    read: ChatCompletion | ChatCompletionChunk | Choice | ChunkChoice | ToolCall | ToolCallDelta | Usage,
    data: Mapping[str, Any],
    names: Iterable[str],
) -> None:
    """Adds those of these fields of an object that are set: Parley has no place of its own for them."""
    fields = {name: data[name] for name in names if data.get(name) is not None}
    if fields:
        read.extra_json = dumps(fields)


def tier(usage: Mapping[str, Any]) -> str | None:
    """Returns the tier of service that answered, in OpenAI's words where it has any."""
    found = usage.get("service_tier")
    return _TIERS.get(found, found) if found else None


def _tool_call(block: Mapping[str, Any]) -> ToolCall:
    function = FunctionCall(name=block["name"], arguments=orjson.dumps(block["input"]).decode())
    call = ToolCall(id=block["id"], type="function", function=function)
    add_unknown(call, block, block.keys() - KNOWN_OF_CALLS)
    return call


def dumps(data: Any) -> str:
    """Returns the JSON text of unknown fields."""
    return orjson.dumps(data).decode()
