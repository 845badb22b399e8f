"""Equivalence of messages that a client received, rewrote and sent back. Pure functions.

Clients change histories: they parse tool arguments and serialize them again (LangChain, the AI SDK), join or split
text parts (the OpenAI Agents SDK), trim text, add `name`, move cache markers, and drop reasoning and unknown fields.
None of that changes the meaning of a message.
"""

import json
import re
from collections.abc import Sequence
from itertools import starmap
from typing import Any, Final

from google.protobuf.struct_pb2 import Struct, Value

from parley.core.messages.proto_json import from_value
from parley.v1.message_pb2 import FunctionCall, Message, ToolCall

_TEXT: Final = frozenset({"text", "input_text", "output_text"})
_REASONING: Final = frozenset(
    {"thinking", "redacted_thinking", "reasoning"}
)  # clients may drop it, like `reasoning_content`
_IGNORED_FIELDS: Final = frozenset({"cache_control", "annotations"})  # of a part: they are not content
_SEPARATORS: Final = ("", "\n", "\n\n", " ")  # between text parts that a client has joined
_THINKING: Final = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_RESULTS: Final = frozenset({"tool", "function"})


def is_equivalent(one: Message, other: Message) -> bool:
    """Reports whether two messages have the same meaning.

    It compares the role, the content without outer white space, the tool calls with their arguments as JSON values, and
    `name`, `refusal` and the id of audio if both messages have them. It ignores reasoning, annotations and unknown
    fields, as clients drop them.
    """
    if one.role != other.role or one.tool_call_id != other.tool_call_id:
        return False
    return (
        _equal_or_absent(one.name, other.name)
        and _equal_or_absent(one.audio.id, other.audio.id)
        and _equal_or_absent(refusal(one), refusal(other))
        and _same_content(one, other)
        and _same_calls(one.tool_calls, other.tool_calls)
        and _same_function(one.function_call, other.function_call)
    )


def fingerprint(message: Message) -> tuple[str, ...] | None:
    """Returns a key that most equivalent messages share; None for a message without text or tool calls.

    Equivalent messages may have different keys, so only equal keys are evidence.
    """
    calls = sorted(call.id for call in message.tool_calls)
    if any(calls):
        return (message.role, "calls", *calls)
    text = "".join(_texts(message.content)).strip()
    return (message.role, "text", text, message.tool_call_id) if text else None


def is_empty(message: Message) -> bool:
    """Reports whether an assistant message has no content that a client would keep, as one with reasoning only."""
    has_content = message.tool_calls or message.HasField("function_call") or message.audio.id or refusal(message)
    return message.role == "assistant" and not has_content and not _parts(message.content)


def refusal(message: Message) -> str:
    """Returns the refusal, from its own field or from a part of the content."""
    text = (part.fields["refusal"].string_value for part in _structs(message.content) if _kind(part) == "refusal")
    return (message.refusal or "".join(text)).strip()


def same_json(one: str, other: str) -> bool:
    """Reports whether two JSON texts have the same value; texts that are not JSON must be equal. Empty means `{}`."""
    one, other = one.strip() or "{}", other.strip() or "{}"
    if one == other:
        return True
    try:
        return _equal(json.loads(one, strict=False), json.loads(other, strict=False))
    except (ValueError, OverflowError, RecursionError):
        return False


def _equal_or_absent(one: str, other: str) -> bool:
    """Reports whether two texts are equal, or one of them is absent."""
    return not one or not other or one == other


def _same_content(one: Message, other: Message) -> bool:
    if one.content == other.content:
        return True
    one_parts, other_parts = _parts(one.content), _parts(other.content)
    if all(isinstance(part, str) for part in (*one_parts, *other_parts)):
        if one.role == "assistant":
            one_parts, other_parts = _without_thinking(one_parts), _without_thinking(other_parts)
        return _same_text(one_parts, other_parts, is_result=one.role in _RESULTS)
    return len(one_parts) == len(other_parts) and all(map(_same_part, one_parts, other_parts))


def _same_part(one: Any, other: Any) -> bool:
    return one.strip() == other.strip() if isinstance(one, str) and isinstance(other, str) else _equal(one, other)


def _without_thinking(texts: Sequence[str]) -> list[str]:
    """Removes reasoning that a model writes before its answer; clients drop it (model cards of R1 and Qwen3)."""
    return [_THINKING.sub("", texts[0]), *texts[1:]] if texts else []


def _same_text(one: Sequence[str], other: Sequence[str], *, is_result: bool) -> bool:
    """Compares texts that may have been joined; a tool's result also as JSON, as some clients serialize it again."""
    if {separator.join(one).strip() for separator in _SEPARATORS} & {
        separator.join(other).strip() for separator in _SEPARATORS
    }:
        return True
    return is_result and bool(one and other) and same_json("".join(one), "".join(other))


def _same_calls(one: Sequence[ToolCall], other: Sequence[ToolCall]) -> bool:
    """Compares tool calls by id in any order, or, if some have no id, in their order."""
    if len(one) != len(other):
        return False
    if all(call.id for call in (*one, *other)):
        one, other = sorted(one, key=_id), sorted(other, key=_id)
    return all(map(_same_call, one, other))


def _same_call(one: ToolCall, other: ToolCall) -> bool:
    return (
        _equal_or_absent(one.id, other.id)
        and one.custom.name == other.custom.name
        and one.custom.input == other.custom.input
        and _same_function(one.function, other.function)
    )


def _same_function(one: FunctionCall, other: FunctionCall) -> bool:
    return one.name == other.name and same_json(one.arguments, other.arguments)


def _id(call: ToolCall) -> str:
    return call.id


def _parts(content: Value) -> list[Any]:
    """Returns the content as texts and other parts, without empty texts, reasoning and refusals."""
    if content.HasField("string_value"):
        return [content.string_value] if content.string_value.strip() else []
    return [part for part in map(_part, _structs(content)) if part]


def _part(part: Struct) -> Any:
    """Returns a part's text, or its fields without markers; None for parts that clients drop."""
    kind = _kind(part)
    if kind in _TEXT:
        text = part.fields["text"].string_value
        return text if text.strip() else None
    if kind == "refusal" or kind in _REASONING:
        return None
    if kind == "image_url" and "image_url" in part.fields:
        image = part.fields["image_url"]  # a URL, or an object with the URL and a level of detail
        return [kind, image.string_value or image.struct_value.fields["url"].string_value]
    fields = {name: from_value(value) for name, value in part.fields.items() if name not in _IGNORED_FIELDS}
    return {name: value for name, value in fields.items() if value is not None}


def _kind(part: Struct) -> str:
    return part.fields["type"].string_value if "type" in part.fields else "text" if "text" in part.fields else ""


def _structs(content: Value) -> list[Struct]:
    return [part.struct_value for part in content.list_value.values] if content.HasField("list_value") else []


def _texts(content: Value) -> list[str]:
    return [part for part in _parts(content) if isinstance(part, str)]


def _equal(one: Any, other: Any) -> bool:
    """Compares JSON values: objects in any order of keys, numbers by value."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(starmap(_equal, zip(one, other, strict=True)))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int) and isinstance(other, int):
        return one == other or one == _rounded(other) or other == _rounded(one)
    if isinstance(one, int | float) and isinstance(other, int | float):
        return float(one) == float(other)
    return bool(one == other)


def _rounded(number: int) -> int:
    """Returns an integer as JavaScript writes it, whose numbers are doubles."""
    from decimal import Decimal  # 0.3 MB

    return int(Decimal(repr(float(number))))
