"""Fields that are not in the protos: `extra` and `extra_json`, in requests and in answers.

The service uses only the text (see message.proto). In a request a Struct becomes text, and a field of any JSON type
that is sent as text is set, so that the core can read it. In an answer gRPC callers get the Struct, too.
"""

from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value

from parley.core.errors import InvalidRequest, Violation
from parley.core.messages import extra_fields
from parley.core.messages.typed_fields import json_fields
from parley.rpc.key_order import STRUCTS, keep_key_order
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk, CreateChatCompletionRequest
from parley.v1.sessions_pb2 import ListSessionMessagesResponse

Fault = tuple[str, str]

_STRUCT, _TEXT = 1, 2
_TEXTS = ("extra_json", "extra_body_json")
_CARRIERS = frozenset({"extra", "extra_json"})
_MAX_DEPTH = 30  # levels of JSON in a Struct, each of which takes three of protobuf's 100

_Finder = Callable[[Any], int]


def read(request: CreateChatCompletionRequest, data: bytes) -> None:
    """Replaces every Struct that has a text field beside it by that text, and sets fields that are sent as text only.

    Args:
        request: The request, which is changed.
        data: The bytes that the request was decoded from.

    Raises:
        InvalidRequest: With all violations.
        google.protobuf.message.DecodeError: The bytes cannot be decoded.
    """
    found = _find_in_request(request)
    if found & _STRUCT:
        keep_key_order(request, data)
    if found:
        violations = [Violation(*fault) for fault in _read(request, "")]
        if violations:
            raise InvalidRequest.of(violations)


def fill_structs(answer: ChatCompletion | ChatCompletionChunk | ListSessionMessagesResponse) -> None:
    """Sets every `extra` from its `extra_json`, unless that is nested too deeply for a Struct."""
    if _FIND[type(answer)](answer):
        _fill_structs(answer)


def _finder(kind: Descriptor) -> _Finder | None:
    """Returns a function that finds Structs (`_STRUCT`) and texts (`_TEXT`) of unknown fields in a message.

    It is compiled once a type, because every message of every call is searched and almost none has any. None where the
    type cannot have any.
    """
    flags = {struct: _STRUCT for struct, _ in STRUCTS.get(kind.full_name, ())}
    flags |= {field.name: _TEXT for field in kind.fields if field.name in _TEXTS}
    inner = [(field, _finder(type_of)) for field in kind.fields if (type_of := _type(field)) is not None]
    finders = {field.name: (find, field.is_repeated) for field, find in inner if find is not None}
    if not (flags or finders):
        return None

    def find_any(message: Any) -> int:
        found = 0
        for field, value in message.ListFields():
            name = field.name
            if name in finders:
                find, is_repeated = finders[name]
                for item in value if is_repeated else (value,):
                    found |= find(item)
            elif name in flags:
                found |= flags[name]
        return found

    return find_any


def _type(field: FieldDescriptor) -> Descriptor | None:
    """Returns the message type of a field if it is one of Parley's and not a map."""
    kind = field.message_type
    message_type = kind is not None and kind.full_name.startswith("parley.") and not kind.GetOptions().map_entry
    return kind if message_type else None


def _inner(message: Message) -> Iterator[tuple[str, Any]]:
    """Yields the messages nested directly in a message, with their paths."""
    for field, value in message.ListFields():
        if _type(field) is None:
            continue
        if field.is_repeated:
            yield from ((f"{field.json_name}[{index}]", item) for index, item in enumerate(value))
        else:
            yield field.json_name, value


def _read(message: Message, path: str) -> Iterator[Fault]:
    text = next((name for name in _TEXTS if name in message.DESCRIPTOR.fields_by_name and message.HasField(name)), None)
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
    return can_be and (not request.HasField(field.name) or getattr(request, field.name) == _value(data, _MAX_DEPTH))


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
        getattr(message, field.name).extend(_value(item, _MAX_DEPTH).struct_value for item in data)
    elif field.message_type is Value.DESCRIPTOR:
        getattr(message, field.name).CopyFrom(_value(data, _MAX_DEPTH))
    elif isinstance(data, dict):
        getattr(message, field.name).CopyFrom(_value(data, _MAX_DEPTH).struct_value)
    else:
        return False
    return True


def _value(data: Any, levels: int) -> Value:
    """Returns JSON data as a Value, with numbers as doubles and null below so many levels."""
    value_ = Value()
    if data is None or levels < 0:
        value_.null_value = 0  # type: ignore[assignment]
    elif isinstance(data, bool):
        value_.bool_value = data
    elif isinstance(data, str):
        value_.string_value = data
    elif isinstance(data, int | float):
        value_.number_value = _double(data)
    elif isinstance(data, list):
        value_.list_value.values.extend(_value(item, levels - 1) for item in data)
    else:
        value_.struct_value.SetInParent()
        for key, item in data.items():
            value_.struct_value.fields[key].CopyFrom(_value(item, levels - 1))
    return value_


def _is_deep(data: Any, levels: int) -> bool:
    """Returns whether JSON data has more levels."""
    if levels < 0:
        return True
    values = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    return any(_is_deep(value, levels - 1) for value in values)


def _double(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return float("inf" if number > 0 else "-inf")


def _fill_structs(message: Any) -> None:
    if "extra_json" in message.DESCRIPTOR.fields_by_name and message.HasField("extra_json"):
        data = extra_fields.read_object(message.extra_json) or {}
        if not _is_deep(data, _MAX_DEPTH):
            message.extra.CopyFrom(_value(data, _MAX_DEPTH).struct_value)
    for _, inner in _inner(message):
        _fill_structs(inner)


def _required(kind: Descriptor) -> _Finder:
    find = _finder(kind)
    assert find is not None  # noqa: S101 - these types have unknown fields
    return find


_find_in_request = _required(CreateChatCompletionRequest.DESCRIPTOR)
_FIND: dict[type[Message], _Finder] = {
    kind: _required(kind.DESCRIPTOR) for kind in (ChatCompletion, ChatCompletionChunk, ListSessionMessagesResponse)
}
