"""Writes the fields of admin requests: `python -m protos.openapi.admin_fields DESCRIPTOR admin_fields.lua`."""

import sys
from collections.abc import Mapping
from pathlib import Path

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

from protos.openapi.descriptor import map_value

PACKAGE = "parley.admin.v1"
_HEAD = """\
-- GENERATED from protos/ by `make gen`: the JSON of the admin API's requests.
--   methods   the type of the request by the path of the method
--   types     by type and name of a field: the type of its object, or `false` for any other value
"""


def main(descriptor: Path, output: Path) -> None:
    """Writes the table for a descriptor."""
    files = [file for file in FileDescriptorSet.FromString(descriptor.read_bytes()).file if file.package == PACKAGE]
    methods = {
        f"/{PACKAGE}.{service.name}/{method.name}": _local_name(method.input_type)
        for file in files
        for service in file.service
        for method in service.method
    }
    messages = {message.name: message for file in files for message in file.message_type}
    paths = "".join(f'    ["{path}"] = "{kind}",\n' for path, kind in sorted(methods.items()))
    types = "".join(_row(messages, kind) for kind in sorted(_reached(messages, set(methods.values()))))
    output.write_text(
        f"{_HEAD}return {{\n  methods = {{\n{paths}  }},\n  types = {{\n{types}  }},\n}}\n", encoding="utf-8"
    )


def _local_name(type_name: str) -> str:
    return type_name.removeprefix(f".{PACKAGE}.")


def _reached(messages: Mapping[str, DescriptorProto], names: set[str]) -> set[str]:
    """Returns the types of the requests and of their fields."""
    kinds = {_kind(messages, messages[name], field) for name in names for field in messages[name].field}
    more = {kind for kind in kinds if kind} - names
    return _reached(messages, names | more) if more else names


def _kind(messages: Mapping[str, DescriptorProto], message: DescriptorProto, field: Field) -> str | None:
    """Returns the type of the field's object; None for scalars, maps, and the types of protobuf.

    Raises:
        ValueError: The field is a map of objects, which the edge's script cannot check.
    """
    value, name = map_value(message, field), _local_name(field.type_name)
    if value and value.type == Field.TYPE_MESSAGE:
        raise ValueError(f"{message.name}.{field.name} is a map of objects, which edge/lua/admin.lua does not check")
    return name if name in messages else None


def _row(messages: Mapping[str, DescriptorProto], name: str) -> str:
    lines = []
    for field in messages[name].field:
        kind = _kind(messages, messages[name], field)
        value = f'"{kind}"' if kind else "false"
        lines += [f'      ["{given}"] = {value},\n' for given in {field.name, field.json_name}]
    return f"    {name} = {{\n{''.join(sorted(lines))}    }},\n"


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
