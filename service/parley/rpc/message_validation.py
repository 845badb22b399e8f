"""Validation of messages and their content."""

from collections.abc import Iterator

from google.protobuf.struct_pb2 import Value

from parley.core.messages.roles import ROLES
from parley.v1.message_pb2 import Message

Fault = tuple[str, str] | tuple[str, str, str]
"""The field, the message and optionally the kind of a Violation."""

CONTENT_TYPES = "a string or an array of content parts"


TEXT_ROLES = frozenset({"system", "developer", "user", "assistant"})
"""The roles of messages that need nothing besides their content."""


def is_plain_text(message: Message) -> bool:
    """Returns whether a message has a role and a text, as most have: then nothing is wrong with it."""
    text = message.content.string_value
    return bool(text) and message.role in TEXT_ROLES and "\0" not in text


def message_faults(message: Message, path: str) -> Iterator[Fault]:
    """Yields what is wrong with a message at `path`, for example `messages[0]`."""
    if message.role not in ROLES:
        kind = "literal_error" if message.role else "missing"
        yield f"{path}.role", f"`{path}.role` must be one of {', '.join(ROLES)}", kind
        return
    yield from _content(message, f"{path}.content")
    if _has_nul(message.content):
        yield f"{path}.content", f"`{path}.content` must not contain the character U+0000"
    if message.role == "tool" and not message.tool_call_id:
        yield f"{path}.tool_call_id", f"`{path}.tool_call_id` is required where `role` is tool", "missing"
    if message.role == "function" and not message.name:
        yield f"{path}.name", f"`{path}.name` is required where `role` is function", "missing"


def _content(message: Message, path: str) -> Iterator[Fault]:
    kind = message.content.WhichOneof("kind") if message.HasField("content") else None
    is_assistant = message.role == "assistant"
    if kind == "list_value":
        yield from part_faults(message.content, path)
    elif kind not in (None, "null_value", "string_value"):
        allowed = "a string, an array of content parts or null" if is_assistant else CONTENT_TYPES
        yield path, f"`{path}` must be {allowed}", "string_type"
    elif kind != "string_value" and not is_assistant:
        requirement = "missing" if kind is None else "string_type"
        yield path, f"`{path}` is required and must be {CONTENT_TYPES}", requirement
    elif kind is None and not _has_other_output(message):
        yield path, f"`{path}` may be null only beside `tool_calls` or `function_call`", "missing"


def part_faults(content: Value, path: str) -> Iterator[Fault]:
    """Yields what is wrong with an array of content parts at `path`."""
    for index, part in enumerate(content.list_value.values):
        at = f"{path}[{index}]"
        if not part.HasField("struct_value"):
            yield at, f"`{at}` must be an object with a `type`, for example text or image_url", "dict_type"
        elif part.struct_value.fields["type"].WhichOneof("kind") != "string_value":
            yield at, f"`{at}` must be an object with a `type`, for example text or image_url"
    if not content.list_value.values:
        yield path, f"`{path}` must not be an empty array", "too_short"


def _has_nul(value: Value) -> bool:
    if value.HasField("struct_value"):
        return any("\0" in key or _has_nul(item) for key, item in value.struct_value.fields.items())
    if value.HasField("list_value"):
        return any(_has_nul(item) for item in value.list_value.values)
    return "\0" in value.string_value


def _has_other_output(message: Message) -> bool:
    return bool(message.tool_calls) or any(
        message.HasField(name) for name in ("function_call", "refusal", "audio", "reasoning_content")
    )
