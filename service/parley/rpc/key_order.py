"""Keeps the order of keys in JSON Schemas, which matters to models, and in parameters for one backend.

The fields of a Struct are a protobuf map, whose order is lost in Python. On the wire a map is a repeated field of
entries (protobuf encoding, "Maps"), which keeps it. So a request with such objects is decoded a second time, with
a copy of the protos in which the map of Struct is declared as a repeated field.
"""

from collections.abc import Iterator
from typing import Any

import orjson
from google.api import httpbody_pb2
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, message_factory, struct_pb2
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from parley.core.messages.proto_json import number
from parley.v1 import chat_completions_pb2, message_pb2, receipt_pb2, sessions_pb2
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.sessions_pb2 import AddSessionMessagesRequest


def _structs(kind: Descriptor) -> Iterator[tuple[str, tuple[tuple[str, str], ...]]]:
    """Yields this type and those nested in it, each with its Structs that have a text field beside them."""
    names = {field.name for field in kind.fields}
    yield kind.full_name, tuple((name, f"{name}_json") for name in sorted(names) if f"{name}_json" in names)
    for field in kind.fields:
        nested = field.message_type
        if nested is not None and nested.full_name.startswith("parley.") and not nested.GetOptions().map_entry:
            yield from _structs(nested)


STRUCTS = dict(_structs(CreateChatCompletionRequest.DESCRIPTOR))
"""By the full name of a type: its Struct fields, each with the field that has the same object as text."""


def keep_key_order(request: CreateChatCompletionRequest | AddSessionMessagesRequest, data: bytes) -> None:
    """Replaces every Struct that has a text field beside it by that text, unless the text is set already.

    Args:
        request: The request, which is changed.
        data: The bytes that the request was decoded from.

    Raises:
        google.protobuf.message.DecodeError: The bytes cannot be decoded.
    """
    _copy_order(request, _ORDERED[type(request)].FromString(data))


def _copy_order(target: Any, source: Any) -> None:
    for struct, text in STRUCTS.get(target.DESCRIPTOR.full_name, ()):
        if target.HasField(struct):
            if not target.HasField(text):
                setattr(target, text, orjson.dumps(_object(getattr(source, struct))).decode())
            target.ClearField(struct)
    for field, value in target.ListFields():
        if field.message_type is None or field.message_type.full_name not in STRUCTS:
            continue
        if field.is_repeated:
            for one, ordered in zip(value, getattr(source, field.name), strict=True):
                _copy_order(one, ordered)
        else:
            _copy_order(value, getattr(source, field.name))


def _object(struct: Any) -> dict[str, Any]:
    return {entry.key: _value(entry.value) for entry in struct.fields}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return _object(value.struct_value)
    if kind == "list_value":
        return [_value(item) for item in value.list_value.values]
    if kind == "number_value":
        return number(value.number_value)
    return None if kind in (None, "null_value") else getattr(value, kind)


def _ordered(*kinds: type[Message]) -> dict[type[Message], Any]:
    pool = descriptor_pool.DescriptorPool()
    for module in _FILES:
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        _without_maps(file)
        pool.Add(file)
    return {
        kind: message_factory.GetMessageClass(pool.FindMessageTypeByName(kind.DESCRIPTOR.full_name)) for kind in kinds
    }


def _without_maps(file: descriptor_pb2.FileDescriptorProto) -> None:
    """Drops the services, and makes the map of Struct a repeated field."""
    file.ClearField("service")
    kept = [name for name in file.dependency if not name.startswith("google/api/") or name in _NAMES]
    file.dependency[:] = kept
    for message in file.message_type:
        if message.name == "Struct":
            message.nested_type[0].ClearField("options")


_FILES: Any = (struct_pb2, any_pb2, httpbody_pb2, message_pb2, receipt_pb2, chat_completions_pb2, sessions_pb2)
_NAMES = {module.DESCRIPTOR.name for module in _FILES}
_ORDERED = _ordered(CreateChatCompletionRequest, AddSessionMessagesRequest)
