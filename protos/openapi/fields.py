"""Writes what the edge knows of a request's fields: `python -m protos.openapi.fields DESCRIPTOR fields.lua`."""

import sys
from pathlib import Path

from google.protobuf.descriptor_pb2 import DescriptorProto
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

from protos.openapi.descriptor import map_value, read

_HEAD = """\
-- GENERATED from protos/ by `make gen`: the names that the transcoder knows at the top of a request's body, each with
-- what it must be; true where that is more than one thing.
"""
_SCALARS = {
    Field.TYPE_STRING: "a string",
    Field.TYPE_BOOL: "true or false",
    Field.TYPE_DOUBLE: "a number",
    Field.TYPE_UINT32: "a whole number, zero or more",
    Field.TYPE_INT64: "a whole number",
}


def main(descriptor: Path, output: Path) -> None:
    """Writes the table of a descriptor."""
    message = read(descriptor).messages["CreateChatCompletionRequest"]
    kinds = {name: _kind(message, field) for field in message.field for name in (field.name, field.json_name)}
    rows = "".join(f"  {name} = {kind},\n" for name, kind in sorted(kinds.items()))
    output.write_text(f"{_HEAD}return {{\n{rows}}}\n", encoding="utf-8")


def _kind(message: DescriptorProto, field: Field) -> str:
    """What the field must be, as Lua."""
    value = map_value(message, field)
    if value:
        return f'"an object whose values are each {_SCALARS[value.type]}"'
    if field.label == Field.LABEL_REPEATED:
        return '"an array"'
    if field.type_name == ".google.protobuf.Value":
        return "true"
    return f'"{_SCALARS.get(field.type, "an object")}"'


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
