"""JSON data as messages: the reverse of `proto_json.from_message`."""

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value

from parley.core.messages import extra_fields
from parley.core.messages.json_values import to_value
from parley.core.messages.proto_json import from_message
from parley.core.messages.typed_fields import json_fields

_CARRIERS = frozenset({"extra", "extra_json"})
_JSON = (Value.DESCRIPTOR, Struct.DESCRIPTOR)


def fill(message: Message, data: dict[str, Any]) -> None:
    """Sets the fields of a message from JSON data; unknown ones go to `extra_json`.

    So does, beside its field, data of any JSON type whose field loses digits of numbers or the order of keys.

    Raises:
        ValueError: A field has another type, or is unknown in a message that keeps no unknown fields.
    """
    kind: Any = message.DESCRIPTOR
    fields = {field.json_name: field for field in json_fields(kind) if field.name not in _CARRIERS}
    unknown: dict[str, Any] = {}
    for name, value in data.items():
        field = fields.get(name)
        if field is None:
            unknown[name] = value
        elif value is not None or field.message_type == Value.DESCRIPTOR:
            _set(message, field, value)
            if field.message_type in _JSON and not _is_exact(message, field, value):
                unknown[name] = value
    if unknown:
        _keep(message, unknown)


def _set(message: Any, field: FieldDescriptor, value: Any) -> None:
    try:
        _assign(message, field, value)
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"`{field.json_name}` has a wrong type") from error


def _assign(message: Any, field: FieldDescriptor, value: Any) -> None:
    kind = field.message_type
    if kind is None and not field.is_repeated:
        setattr(message, field.name, value)
        return
    target = getattr(message, field.name)
    if kind is None:
        target.extend(value)
    elif kind.GetOptions().map_entry:
        target.update(value)
    elif field.is_repeated:
        for item in value:
            _read(target.add(), item)
    else:
        target.SetInParent()
        _read(target, value)


def _read(target: Message, value: Any) -> None:
    if target.DESCRIPTOR == Value.DESCRIPTOR:
        target.CopyFrom(to_value(value))
    elif target.DESCRIPTOR == Struct.DESCRIPTOR:
        if not isinstance(value, dict):
            raise TypeError(type(value).__name__)
        target.CopyFrom(to_value(value).struct_value)
    else:
        fill(target, value)


def _is_exact(message: Any, field: FieldDescriptor, data: Any) -> bool:
    """Returns whether a field of any JSON type has the data exactly, so that it is written as it was read."""
    if isinstance(data, str | None):
        return True
    stored = getattr(message, field.name)
    found = [from_message(item) for item in stored] if field.is_repeated else from_message(stored)
    return extra_fields.dump_bytes(found) == extra_fields.dump_bytes(data)


def _keep(message: Any, unknown: dict[str, Any]) -> None:
    if "extra_json" not in message.DESCRIPTOR.fields_by_name:
        raise ValueError(f"`{next(iter(unknown))}` is unknown")
    message.extra_json = extra_fields.dumps(unknown)
