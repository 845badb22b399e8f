"""JSON data as messages: the reverse of `proto_json.from_message`."""

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value

from parley.core.messages import extra_fields
from parley.core.messages.typed_fields import json_fields

_CARRIERS = frozenset({"extra", "extra_json"})
_JSON = (Value.DESCRIPTOR, Struct.DESCRIPTOR)


def fill(message: Message, data: dict[str, Any]) -> None:
    """Sets the fields of a message from JSON data; unknown ones go to `extra_json`.

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
    if unknown:
        _keep(message, unknown)


def _set(message: Any, field: FieldDescriptor, value: Any) -> None:
    try:
        _assign(message, field, value)
    except (AttributeError, ParseError, TypeError) as error:
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
    if target.DESCRIPTOR in _JSON:
        ParseDict(value, target)
    else:
        fill(target, value)


def _keep(message: Any, unknown: dict[str, Any]) -> None:
    if "extra_json" not in message.DESCRIPTOR.fields_by_name:
        raise ValueError(f"`{next(iter(unknown))}` is unknown")
    message.extra_json = extra_fields.dumps(unknown)
