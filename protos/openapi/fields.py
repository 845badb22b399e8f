"""Writes the edge's table of the fields of requests: `python -m protos.openapi.fields DESCRIPTOR fields.lua`."""

import sys
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor_pb2 import DescriptorProto
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

from parley.rpc.field_rules import DIALECT_RANGES
from protos.openapi.descriptor import Protos, is_grpc_only, local_name, map_value, read

_HEAD = """\
-- GENERATED from protos/ by `make gen`: the JSON objects of the bodies that the transcoder parses. A row for each type:
--   extra          the field for unknown members; without it, the transcoder drops them
--   extra_number   its number
--   fields         by name: the kind of the value (see schema.lua) and the number; `of` is the type of an object,
--                  `text` the field for the exact text of the value, `name` the documented name where it differs,
--                  `ranges` the lowest and the highest value in the dialects with a range of their own
"""
_CHAT = "CreateChatCompletionRequest"
_REQUESTS = (_CHAT, "ForkSessionRequest", "UpdateSessionRequest", "AddSessionMessagesRequest")
_SCALARS = {
    Field.TYPE_STRING: "string",
    Field.TYPE_BOOL: "bool",
    Field.TYPE_DOUBLE: "double",
    Field.TYPE_UINT32: "uint32",
    Field.TYPE_INT64: "int64",
}
# The fields that contain unknown members, where the name is not `extra_json`.
_EXTRA = {_CHAT: "extra_body_json"}
_KEYWORDS = frozenset({"end", "for", "function", "in", "repeat", "until"})
_CARRIERS = ("extra", "extra_json")


def main(descriptor: Path, output: Path) -> None:
    """Writes the table for a descriptor."""
    protos = read(descriptor)
    rows = "".join(_row(protos, name) for name in sorted(_reached(protos)))
    output.write_text(f"{_HEAD}return {{\n{rows}}}\n", encoding="utf-8")


def _reached(protos: Protos) -> set[str]:
    """Returns the types of the requests and of their fields."""
    found: set[str] = set()
    left = list(_REQUESTS)
    while left:
        name = left.pop()
        found.add(name)
        kinds = {local_name(field.type_name) for field in _fields(protos, name)}
        left += [kind for kind in kinds if kind in protos.messages and kind not in found]
    return found


def _fields(protos: Protos, name: str) -> list[Field]:
    """Returns the fields of a message that are part of its JSON; members with the names of others are unknown."""
    return [field for field in protos.messages[name].field if not is_grpc_only(protos, name, field)]


def _row(protos: Protos, name: str) -> str:
    message, fields = protos.messages[name], _fields(protos, name)
    numbers = {field.name: field.number for field in fields}
    extra = _EXTRA.get(name, "extra_json")
    carrier = f'    extra = "{extra}",\n    extra_number = {numbers[extra]},\n' if extra in numbers else ""
    lines = sorted(f"      {line},\n" for field in fields for line in _lines(message, field))
    return f"  {message.name} = {{\n{carrier}    fields = {{\n{''.join(lines)}    }},\n  }},\n"


def _lines(message: DescriptorProto, field: Field) -> Iterator[str]:
    """Yields a line for each name of the field."""
    if field.name in _CARRIERS:
        return
    text = f"{field.name}_json"
    more = f', text = "{text}"' if any(other.name == text for other in message.field) else ""
    renamed = f', name = "{field.json_name}"' if field.json_name != field.name else ""
    for name in {field.name, field.json_name}:
        key = f'["{name}"]' if name in _KEYWORDS else name
        yield f"{key} = {{ {_kind(message, field)}{more}{renamed}{_ranges(message, field)} }}"


def _ranges(message: DescriptorProto, field: Field) -> str:
    """Returns the field's narrower ranges by dialect, as Lua."""
    if message.name != _CHAT:
        return ""
    found = {dialect: ranges[field.name] for dialect, ranges in DIALECT_RANGES.items() if field.name in ranges}
    rows = ", ".join(f"{dialect} = {{ {low}, {high} }}" for dialect, (low, high) in found.items())
    return f", ranges = {{ {rows} }}" if rows else ""


def _kind(message: DescriptorProto, field: Field) -> str:
    """Returns the kind of the field's value and its number, as Lua."""
    value = map_value(message, field)
    several = "s" if field.label == Field.LABEL_REPEATED else ""
    kind = local_name(field.type_name)
    if value:
        return f'"{_SCALARS[value.type]}_map", {field.number}'
    if field.type != Field.TYPE_MESSAGE:
        return f'"{_SCALARS[field.type]}{several}", {field.number}'
    if kind.startswith("google.protobuf."):
        return f'"{kind.rpartition(".")[2].lower()}{several}", {field.number}'
    return f'"object{several}", {field.number}, of = "{kind}"'


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
