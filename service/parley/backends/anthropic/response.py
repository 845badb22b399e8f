"""Parses complete responses of Anthropic's Messages API.

Fields without an equivalent in OpenAI's format are kept in `extra_json`: those of a message as in `blocks`, those of
other objects under their own name. Malformed JSON raises MalformedResponse. Source: Messages API reference; handling
stop reasons.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.struct_pb2 import NULL_VALUE, Struct, Value

from parley.backends import lenient_json
from parley.backends.anthropic import blocks
from parley.backends.errors.classifier import SHAPE_ERRORS, ErrorInBody, MalformedResponse, shape_error
from parley.backends.lenient_json import MAX_COUNT, Source, count, repair_text, struct, text_or_none
from parley.backends.parsing import finish_reasons
from parley.backends.parsing.tool_calls import NO_ARGUMENTS, new_id
from parley.core.messages import extra_fields
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


def completion(data: bytes, *, may_be_empty: bool = False) -> ChatCompletion:
    """Parses a complete response.

    Args:
        data: The response body.
        may_be_empty: Whether an answer without output is valid.

    Raises:
        MalformedResponse: If the body is not a valid answer.
        ErrorInBody: If the body is an error.
    """
    try:
        return _completion(lenient_json.loads(data), Source(data), may_be_empty=may_be_empty)
    except SHAPE_ERRORS as error:
        raise shape_error(error) from None


def _completion(answer: Mapping[str, Any], source: Source, *, may_be_empty: bool) -> ChatCompletion:
    if answer.get("error"):
        raise ErrorInBody(answer)
    answer_message = message(answer, source)
    reason = finish_reason(answer.get("stop_reason"))
    has_output = bool(
        answer_message.content.string_value
        or answer_message.reasoning_content
        or answer_message.refusal
        or answer_message.tool_calls
    )
    require_output(reason, has_output=has_output, may_be_empty=may_be_empty)
    choice = Choice(index=0, message=answer_message, finish_reason=reason)
    add_unknown(choice, answer, OF_CHOICES)
    cost = answer.get("usage")
    cost = cost if isinstance(cost, Mapping) else {}
    read = ChatCompletion(choices=[choice], usage=usage(cost), service_tier=tier(cost))
    add_unknown(read, answer, answer.keys() - _KNOWN)
    return read


def message(answer: Mapping[str, Any], source: Source) -> Message:
    """Parses the blocks of a complete response. Content without text is null beside tool calls, else empty."""
    read = Message(role="assistant")
    texts = []
    for place, block in enumerate(answer["content"]):
        match block["type"]:
            case "text":
                texts.append(repair_text(block["text"]))
                read.annotations.extend(annotations(block.get("citations")))
            case "thinking":
                read.reasoning_content += repair_text(block["thinking"])
            case "tool_use":
                read.tool_calls.append(_tool_call(block, source, place))
    is_null = read.tool_calls and not texts
    read.content.CopyFrom(Value(null_value=NULL_VALUE) if is_null else Value(string_value="".join(texts)))
    if refusal_text := refusal(answer):
        read.refusal = refusal_text
    if fields := blocks.unknown_fields(answer["content"]):
        read.extra_json = dumps(fields)
    return read


def finish_reason(stop_reason: Any) -> str:
    """Converts a stop reason to OpenAI's finish reason. Raises MalformedResponse for an unknown one."""
    return finish_reasons.to_openai(finish_reasons.normalized(stop_reason) or "end_turn")


def require_output(reason: str | None, *, has_output: bool, may_be_empty: bool) -> None:
    """Raises MalformedResponse if an answer is empty for no valid reason."""
    if not (has_output or reason in finish_reasons.MAY_BE_EMPTY or (may_be_empty and reason)):
        raise MalformedResponse("the answer is empty")


def refusal(ended: Mapping[str, Any]) -> str | None:
    """Returns the explanation of a refusal, if any; `ended` is the object with `stop_details`."""
    details = ended.get("stop_details")
    return text_or_none(details.get("explanation")) if isinstance(details, Mapping) else None


def annotations(citations: Any) -> list[Struct]:
    """Converts citations to annotations, unchanged; malformed ones are dropped."""
    found = citations if isinstance(citations, list) else ()
    return [read for read in map(struct, found) if read is not None]


def usage(data: Mapping[str, Any]) -> Usage | None:
    """Parses the usage; None if the response has none.

    Prompt tokens that were read from or written to the cache are separate counts in the API; here they are included.
    """
    prompt, produced = count(data.get("input_tokens")), count(data.get("output_tokens"))
    cached, written = count(data.get("cache_read_input_tokens")), count(data.get("cache_creation_input_tokens"))
    if prompt is None and produced is None:
        return None
    read = Usage(completion_tokens=produced)
    if prompt is not None:
        read.prompt_tokens = min(prompt + (cached or 0) + (written or 0), MAX_COUNT)
        read.total_tokens = min(read.prompt_tokens + (produced or 0), MAX_COUNT)
    if cached is not None or written is not None:
        details = PromptTokensDetails(cached_tokens=cached, cache_write_tokens=written)
        read.prompt_tokens_details.CopyFrom(details)
    details_of_output = data.get("output_tokens_details")
    thought = count(details_of_output.get("thinking_tokens")) if isinstance(details_of_output, Mapping) else None
    if thought is not None:
        read.completion_tokens_details.CopyFrom(CompletionTokensDetails(reasoning_tokens=thought))
    add_unknown(read, data, data.keys() - _KNOWN_COUNTS)
    return read


def add_unknown(
    read: ChatCompletion | ChatCompletionChunk | Choice | ChunkChoice | ToolCall | ToolCallDelta | Usage,
    data: Mapping[str, Any],
    names: Iterable[str],
) -> None:
    """Copies the named fields that are set from `data` to `extra_json`."""
    fields = {name: data[name] for name in names if data.get(name) is not None}
    if fields:
        read.extra_json = dumps(fields)


def tier(usage: Mapping[str, Any]) -> str | None:
    """Returns the service tier, under OpenAI's name if there is one."""
    found = text_or_none(usage.get("service_tier"))
    return _TIERS.get(found, found) if found else None


def id_of_call(block: Mapping[str, Any]) -> str:
    """Returns the id of a tool call; a generated one if it is missing."""
    return text_or_none(block.get("id")) or new_id()


def name_of_call(block: Mapping[str, Any]) -> str:
    """Returns the name of the called tool. Raises MalformedResponse if it is missing."""
    name = text_or_none(block.get("name"))
    if name is None:
        raise MalformedResponse("a tool call has no name")
    return name


def _tool_call(block: Mapping[str, Any], source: Source, place: int) -> ToolCall:
    arguments = dumps(source.at("content", place, "input")) if block.get("input") else NO_ARGUMENTS
    function = FunctionCall(name=name_of_call(block), arguments=arguments)
    call = ToolCall(id=id_of_call(block), type="function", function=function)
    add_unknown(call, block, block.keys() - KNOWN_OF_CALLS)
    return call


def dumps(data: Any) -> str:
    """Serializes unknown fields to JSON text."""
    return extra_fields.dumps(data)
