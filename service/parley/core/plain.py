"""Messages as plain JSON data, as Envoy's transcoder prints them: set fields only, under their JSON names."""

from typing import Any

from google.protobuf.message import Message
from google.protobuf.struct_pb2 import ListValue, Struct, Value

_LEAST, _BEYOND = -(2**63), 2**64  # the integers that JSON writers and readers have in common


def number(value: float) -> float | int:
    """Returns a whole double as an integer: JSON in protobuf has no other numbers than doubles.

    Beyond 2⁵³ an integer has been rounded to the nearest double; it stays an integer all the same.
    """
    return int(value) if _LEAST <= value < _BEYOND and value.is_integer() else value


def from_value(value: Value) -> Any:
    """Returns what a `google.protobuf.Value` stands for; None where it is null or unset."""
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "number_value":
        return number(value.number_value)
    if kind == "bool_value":
        return value.bool_value
    if kind == "struct_value":
        return from_struct(value.struct_value)
    return [from_value(item) for item in value.list_value.values] if kind == "list_value" else None


def from_struct(struct: Struct) -> dict[str, Any]:
    """Returns what a `google.protobuf.Struct` stands for. The order of its keys is lost already."""
    return {key: from_value(value) for key, value in struct.fields.items()}


def from_message(message: Message) -> Any:
    """Returns a message as JSON data: a dict, or for the types of `struct.proto` what they stand for."""
    if isinstance(message, Struct):
        return from_struct(message)
    if isinstance(message, Value):
        return from_value(message)
    if isinstance(message, ListValue):
        return [from_value(item) for item in message.values]
    return {field.json_name: _field(field, value) for field, value in message.ListFields()}


def _field(field: Any, value: Any) -> Any:
    if field.message_type is None:
        return list(value) if field.is_repeated else value
    if field.message_type.GetOptions().map_entry:
        return dict(value)
    return [from_message(item) for item in value] if field.is_repeated else from_message(value)
