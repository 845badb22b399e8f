"""Conversion of protobuf messages to JSON data, with JSON names and, on request, the nulls of OpenAI's API."""

from collections.abc import Callable
from functools import partial
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import ListValue, Struct, Value

from parley.core.messages import extra_fields
from parley.core.messages.typed_fields import json_fields

_MIN_INTEGER, _END_INTEGER = -(2**63), 2**64  # the integers that orjson writes

_Convert = Callable[[Any], Any]

# Required fields of answers, in OpenAI's order, with their values if they are not set. (OpenAI's OpenAPI document:
# `required` of CreateChatCompletionResponse, ChatCompletionResponseMessage, ChatCompletionTokenLogprob.)
_ALWAYS: dict[str, dict[str, Any]] = {
    "parley.v1.Choice": {"index": 0, "message": None, "logprobs": None, "finish_reason": None},
    "parley.v1.ChunkChoice": {"index": 0, "delta": {}, "logprobs": None, "finish_reason": None},
    "parley.v1.Logprobs": {"content": None, "refusal": None},
    "parley.v1.TokenLogprob": {"token": "", "logprob": 0, "bytes": None, "top_logprobs": []},
    "parley.v1.TopLogprob": {"token": "", "logprob": 0, "bytes": None},
    "parley.v1.Message": {"role": "assistant", "content": None, "refusal": None},
}
_CARRIERS = frozenset({"extra", "extra_json"})


def number(value: float) -> float | int:
    """Returns a double without a fraction as an integer, because all numbers of JSON in protobuf are doubles.

    Beyond 2⁵³ the integer is the nearest double.
    """
    return int(value) if _MIN_INTEGER <= value < _END_INTEGER and value.is_integer() else value


def from_value(value: Value) -> Any:
    """Returns the JSON value of a `google.protobuf.Value`; None if it is null or not set."""
    if text := value.string_value:  # most values; `WhichOneof` costs twice as much
        return text
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return ""
    if kind == "number_value":
        return number(value.number_value)
    if kind == "bool_value":
        return value.bool_value
    if kind == "struct_value":
        return from_struct(value.struct_value)
    return [from_value(item) for item in value.list_value.values] if kind == "list_value" else None


def from_struct(struct: Struct) -> dict[str, Any]:
    """Returns the JSON object of a `google.protobuf.Struct`, whose keys have no order."""
    return {key: from_value(value) for key, value in struct.fields.items()}


def from_message(message: Message, *, nulls: bool = False) -> Any:
    """Returns a message as JSON data: a dict, or for the types of `struct.proto` their JSON value.

    Unknown fields are among the others, unchanged; `dumps` writes them without loss.

    Args:
        message: The message.
        nulls: Whether to include the fields that OpenAI's API requires and that are not set.
    """
    known = _BY_CLASS.get((type(message), nulls))
    if known is None:
        known = _BY_CLASS[type(message), nulls] = _converter(message.DESCRIPTOR, nulls)  # type: ignore[arg-type] # its other implementation's type
    return known(message)


dumps = extra_fields.dump_bytes
"""Writes data from `from_message` as JSON in UTF-8."""


def _converter(kind: Descriptor, nulls: bool) -> _Convert:
    """Returns the converter of a message type."""
    found = _VALUES.get(kind.full_name) or _CONVERTERS.get((kind.full_name, nulls))
    if found is None:
        found = _CONVERTERS[kind.full_name, nulls] = _make(kind, nulls)
    return found


def _make(kind: Descriptor, nulls: bool) -> _Convert:
    known = [field for field in json_fields(kind) if field.name not in _CARRIERS]
    # By descriptor: `ListFields` makes anew, at each call, those that nothing holds.
    fields = {field: (field.json_name, _field(field, nulls)) for field in known}
    unknown = next((field for field in kind.fields if field.name == "extra_json"), None)
    inexact = {field.json_name for field in kind.fields if field.message_type in (Value.DESCRIPTOR, Struct.DESCRIPTOR)}
    known_names = {name for name, _ in fields.values()} - inexact
    always = _ALWAYS.get(kind.full_name, {}) if nulls else {}

    def convert(message: Any) -> dict[str, Any]:
        data = always.copy()
        for field, value in message.ListFields():
            found = fields.get(field)
            if found is not None:
                name, convert_field = found
                data[name] = value if convert_field is None else convert_field(value)
            elif field is unknown:
                data |= _unknown(value, known_names)
        return data

    return convert


def _field(field: FieldDescriptor, nulls: bool) -> _Convert | None:
    """Returns the converter of a field's value; None if the value needs no conversion."""
    kind = field.message_type
    if kind is None:
        return list if field.is_repeated else None
    if kind.GetOptions().map_entry:
        return dict
    convert = _converter(kind, nulls)
    return partial(_each, convert) if field.is_repeated else convert


def _each(convert: _Convert, values: Any) -> list[Any]:
    return list(map(convert, values))


def _unknown(text: str, known_names: set[str]) -> dict[str, Any]:
    """Reads unknown fields; they cannot replace known ones."""
    return {name: value for name, value in extra_fields.loads(text).items() if name not in known_names}


def _from_list(values: ListValue) -> list[Any]:
    return [from_value(item) for item in values.values]


_VALUES: dict[str, _Convert] = {
    Struct.DESCRIPTOR.full_name: from_struct,
    Value.DESCRIPTOR.full_name: from_value,
    ListValue.DESCRIPTOR.full_name: _from_list,
}
_CONVERTERS: dict[tuple[str, bool], _Convert] = {}
_BY_CLASS: dict[tuple[type[Message], bool], _Convert] = {}
