"""A model's `instructions`, joined with the system messages of the conversation.

Many chat templates, such as those of Qwen, Gemma and Mistral, reject a second system message, and one that is not the
first message. As the instructions add a system message, all system messages are joined into one by default.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from google.protobuf.struct_pb2 import Value

from parley.core.messages import extra_fields
from parley.core.messages.roles import is_system
from parley.v1.message_pb2 import Message

_SEPARATOR = "\n\n"


def with_instructions(instructions: str, messages: Sequence[Message], *, join: bool) -> list[Message]:
    """Returns the conversation with the instructions in front.

    Args:
        instructions: The model's instructions; if empty, the conversation is not changed.
        messages: The conversation.
        join: Whether the instructions and every system and developer message become one system message, in the order
            of the conversation. Otherwise the instructions are a message of their own before it.
    """
    if not instructions:
        return list(messages)
    own = Message(role="system", content=Value(string_value=instructions))
    system = [message for message in messages if is_system(message)] if join else []
    if not system:
        return [own, *messages]
    return [_joined([own, *system]), *(message for message in messages if not is_system(message))]


def _joined(messages: Sequence[Message]) -> Message:
    """Returns one system message with all contents; later names and unknown fields replace earlier ones."""
    joined = Message(role="system", content=_content([message.content for message in messages]))
    for message in messages:
        if message.HasField("name"):
            joined.name = message.name
    extra = _merged(message.extra_json for message in messages if message.extra_json)
    if extra:
        joined.extra_json = extra
    return joined


def _content(contents: Sequence[Value]) -> Value:
    """Returns one text if all contents are texts, else the parts of all."""
    if all(content.HasField("string_value") for content in contents):
        return Value(string_value=_SEPARATOR.join(content.string_value for content in contents if content.string_value))
    made = Value()
    for content in contents:
        if content.HasField("list_value"):
            made.list_value.values.extend(content.list_value.values)
        elif content.string_value:
            part = made.list_value.values.add().struct_value
            part.update({"type": "text", "text": content.string_value})
    return made


def _merged(texts: Iterable[str]) -> str:
    """Merges JSON objects; a single one is not changed."""
    first, *others = [*texts, ""]
    if others in ([], [""]):
        return first
    merged: dict[str, Any] = {}
    for text in (first, *others[:-1]):
        merged |= extra_fields.loads(text)
    return extra_fields.dumps(merged)
