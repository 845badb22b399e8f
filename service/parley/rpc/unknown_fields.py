"""Fields that are not in the protos: `extra` and `extra_json`, in requests and in answers.

The service uses only the text (see message.proto). In a request a Struct becomes text, and a field of any JSON type
that is sent as text is set, so that the core can read it. In an answer gRPC callers get the Struct, too.
"""

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value

from parley.core.messages import extra_fields
from parley.core.messages.json_values import MAX_TEXT_DEPTH, is_deep, to_value
from parley.core.messages.typed_fields import json_fields
from parley.rpc.field_forms import TEXTS, forms_in, parley_type
from parley.rpc.message_validation import Fault
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk, CreateChatCompletionRequest
from parley.v1.sessions_pb2 import ListSessionMessagesResponse

_CARRIERS = frozenset({"extra", "extra_json"})


def read(request: CreateChatCompletionRequest) -> list[Fault]:
    """Validates the texts of unknown fields, and sets fields that are sent as text only; returns what is wrong."""
    return list(_read(request, ""))


def fill_structs(answer: ChatCompletion | ChatCompletionChunk | ListSessionMessagesResponse) -> None:
    """Sets every `extra` from its `extra_json`, unless that is nested too deeply for a Struct."""
    # The text of unknown fields is an object. Few answers have a brace; a search of all fields takes ten times as long.
    if b"{" in answer.SerializeToString() and forms_in(answer):
        _fill_structs(answer)


def filled(chunk: ChatCompletionChunk) -> bytes:
    """Returns a chunk as bytes, with every `extra`; see `fill_structs`."""
    data = chunk.SerializeToString()
    if b"{" not in data or not forms_in(chunk):
        return data
    _fill_structs(chunk)
    return chunk.SerializeToString()


def _inner(message: Message) -> Iterator[tuple[str, Any]]:
    """Yields the messages nested directly in a message, with their paths."""
    for field, value in message.ListFields():
        if parley_type(field) is None:
            continue
        if field.is_repeated:
            yield from ((f"{field.json_name}[{index}]", item) for index, item in enumerate(value))
        else:
            yield field.json_name, value


def _read(message: Message, path: str) -> Iterator[Fault]:
    text = next((name for name in TEXTS if name in message.DESCRIPTOR.fields_by_name and message.HasField(name)), None)
    if text is not None:
        yield from _read_text(message, text, path)
    for name, inner in _inner(message):
        yield from _read(inner, f"{path}.{name}" if path else name)


def _read_text(message: Any, name: str, path: str) -> Iterator[Fault]:
    text = getattr(message, name)
    at = f"{path}.{name}" if path else name
    members = extra_fields.read_object(text)
    if members is None:
        yield at, f"`{at}` must be the text of a JSON object"
        return
    if is_deep(members, MAX_TEXT_DEPTH):
        yield at, f"`{at}` is nested too deeply; a value may have at most {MAX_TEXT_DEPTH - 1} levels"
        return
    if repeated_key := extra_fields.repeated_key(text):
        yield at, f"`{at}` has the key `{repeated_key}` twice"
        return
    known = {field.name: field for field in json_fields(message.DESCRIPTOR) if field.name not in _CARRIERS}
    known |= {field.json_name: field for field in known.values()}
    repeated = [(key, known[key]) for key in members if key in known]
    exact = extra_fields.loads(text) if repeated else {}
    for key, field in repeated:
        field_is_set = f"{path}.{key}" if path else key
        if not _is_any_json(field) or not (path or _is_more_exact(message, field, exact[key])):
            shown = at.removesuffix("_json") if not path else at
            yield f"{shown}.{key}", f"`{shown}.{key}` repeats a field of its object; set `{field_is_set}`"
        elif not _fill(message, field, exact[key]):
            yield (
                field_is_set,
                f"`{field_is_set}` must be {'an array of objects' if field.is_repeated else 'an object'}",
            )


def _is_any_json(field: FieldDescriptor) -> bool:
    return field.message_type in (Value.DESCRIPTOR, Struct.DESCRIPTOR)


def _is_more_exact(request: Any, field: FieldDescriptor, data: Any) -> bool:
    """Returns whether a known field among the unknown ones is the exact text of that field, not a second value.

    Text keeps more digits of numbers, and the order of an object's keys. A field that another Parley has set already
    has the same value.
    """
    can_be = isinstance(data, dict) or _has_number(data)
    return can_be and (not request.HasField(field.name) or getattr(request, field.name) == to_value(data))


def _has_number(data: Any) -> bool:
    if isinstance(data, dict | list):
        return any(map(_has_number, data.values() if isinstance(data, dict) else data))
    return isinstance(data, int | float) and not isinstance(data, bool)


def _fill(message: Any, field: FieldDescriptor, data: Any) -> bool:
    """Sets a field of any JSON type. Returns whether its type can hold the data.

    Values that are nested too deeply become null in the field; the text keeps them.
    """
    message.ClearField(field.name)
    if field.is_repeated:
        if not (isinstance(data, list) and all(isinstance(item, dict) for item in data)):
            return False
        getattr(message, field.name).extend(to_value(item).struct_value for item in data)
    elif field.message_type is Value.DESCRIPTOR:
        getattr(message, field.name).CopyFrom(to_value(data))
    elif isinstance(data, dict):
        getattr(message, field.name).CopyFrom(to_value(data).struct_value)
    else:
        return False
    return True


def _fill_structs(message: Any) -> None:
    if "extra_json" in message.DESCRIPTOR.fields_by_name and message.HasField("extra_json"):
        data = extra_fields.read_object(message.extra_json) or {}
        if not is_deep(data):
            message.extra.CopyFrom(to_value(data).struct_value)
    for _, inner in _inner(message):
        _fill_structs(inner)
