"""Keeps the order of keys in JSON Schemas, where it is meaning to a model, and in a backend's own parameters.

A Struct's fields are a protobuf map, and Python's maps lose the order that the wire has. The same bytes read as a
repeated field of entries keep it: on the wire a map is just that (protobuf encoding, "Maps"). So requests that have
such objects are read a second time, by a twin of the protos in which Struct's map is a plain repeated entry.
"""

from typing import Any

import orjson
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2

from parley.core.plain import number
from parley.v1 import chat_completions_pb2, message_pb2
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest


def keep_key_order(request: CreateChatCompletionRequest, data: bytes) -> None:
    """Fills in every `parameters_json`, `schema_json` and `extra_body_json` left to a Struct, and drops the Struct.

    `data` are the bytes that the request was read from. Raises google.protobuf.message.DecodeError.
    """
    holders = [tool.function for tool in request.tools if tool.function.HasField("parameters")]
    holders += [function for function in request.functions if function.HasField("parameters")]
    schema = request.response_format.json_schema
    if not holders and not schema.HasField("schema") and not request.HasField("extra_body"):
        return
    twin = _TWIN.FromString(data)
    for mine, other in _pairs(request, twin):
        _fill(mine, other, "parameters", "parameters_json")
    _fill(schema, twin.response_format.json_schema, "schema", "schema_json")
    _fill(request, twin, "extra_body", "extra_body_json")


def _pairs(request: CreateChatCompletionRequest, twin: Any) -> list[tuple[Any, Any]]:
    tools = [(mine.function, other.function) for mine, other in zip(request.tools, twin.tools, strict=True)]
    return tools + list(zip(request.functions, twin.functions, strict=True))


def _fill(mine: Any, other: Any, struct: str, text: str) -> None:
    if not mine.HasField(struct):
        return
    if not mine.HasField(text):
        setattr(mine, text, orjson.dumps(_object(getattr(other, struct))).decode())
    mine.ClearField(struct)


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


def _twin() -> Any:
    pool = descriptor_pool.DescriptorPool()
    for module in (struct_pb2, message_pb2, chat_completions_pb2):
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        _plain(file)
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(CreateChatCompletionRequest.DESCRIPTOR.full_name))


def _plain(file: descriptor_pb2.FileDescriptorProto) -> None:
    """Leaves only messages, and makes Struct's map a repeated entry."""
    file.ClearField("service")
    kept = [name for name in file.dependency if not name.startswith("google/api/")]
    file.dependency[:] = kept
    for message in file.message_type:
        if message.name == "Struct":
            message.nested_type[0].ClearField("options")


_TWIN = _twin()
