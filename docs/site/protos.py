"""The references of the gRPC API: a page for each package, from the comments of the protos."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.api import annotations_pb2
from google.api.http_pb2 import HttpRule
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
)
from jinja2 import Environment, FileSystemLoader, StrictUndefined

_HERE = Path(__file__).parent
DESCRIPTOR = _HERE.parents[1] / "edge" / "parley.binpb"
PACKAGES = {
    "parley.v1": ("gRPC reference", "protos.md"),
    "parley.admin.v1": ("gRPC reference: administration", "protos-admin.md"),
    "parley.guard.v1": ("gRPC reference: guards", "protos-guard.md"),
}
"""The title of each package's page, and its name."""
_GUIDES = {
    "parley.v1": "[gRPC](grpc.md)",
    "parley.admin.v1": "[Identity](identity.md#admin-api)",
    "parley.guard.v1": "[Guards](guards.md#a-guard-of-your-own)",
}
_MESSAGES, _ENUMS, _SERVICES, _MEMBERS = 4, 5, 6, 2  # field numbers of FileDescriptorProto and its elements
_TEMPLATES = Environment(  # noqa: S701 - the output is Markdown
    loader=FileSystemLoader(_HERE / "theme"), trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
)


def page(package: str, descriptor: Path = DESCRIPTOR) -> str:
    """Returns the reference of a package in Markdown.

    Args:
        package: A key of `PACKAGES`.
        descriptor: A descriptor set with source info.
    """
    files = [file for file in FileDescriptorSet.FromString(descriptor.read_bytes()).file if file.package == package]
    parts = [_file(file) for file in files]
    return _TEMPLATES.get_template("protos.md.jinja").render(
        title=PACKAGES[package][0],
        package=package,
        guide=_GUIDES[package],
        services=[one for part in parts for one in part["services"]],
        messages=[one for part in parts for one in part["messages"]],
        enums=[one for part in parts for one in part["enums"]],
    )


def _file(file: FileDescriptorProto) -> dict[str, list[dict[str, Any]]]:
    """Returns the services, messages and enums of a file, with their members."""
    comments = {tuple(place.path): _text(place.leading_comments) for place in file.source_code_info.location}

    def elements(number: int, found: Any, kind: str, member: Any) -> list[dict[str, Any]]:
        return [
            {
                "name": one.name,
                "comment": comments.get((number, at), ""),
                "members": [
                    member(one, child)
                    | {"name": child.name, "comment": comments.get((number, at, _MEMBERS, index), "")}
                    for index, child in enumerate(getattr(one, kind))
                ],
            }
            for at, one in enumerate(found)
        ]

    return {
        "services": elements(_SERVICES, file.service, "method", _method),
        "messages": elements(_MESSAGES, file.message_type, "field", _field),
        "enums": elements(_ENUMS, file.enum_type, "value", lambda _, value: {"number": value.number}),
    }


def _text(comment: str) -> str:
    """Returns a comment as one line of Markdown; a bar would end a cell of a table."""
    parts = re.split(r"(`[^`]*`)", " ".join(comment.split()))
    plain = [part if part.startswith("`") else re.sub(r"([<*_])", r"\\\1", part) for part in parts]
    return "".join(plain).replace("|", "\\|")


def _method(_: Any, method: MethodDescriptorProto) -> dict[str, Any]:
    return {
        "request": f"{'stream ' if method.client_streaming else ''}{_link(method.input_type)}",
        "response": f"{'stream ' if method.server_streaming else ''}{_link(method.output_type)}",
        "rest": list(_rest(method)),
    }


def _rest(method: MethodDescriptorProto) -> Iterator[str]:
    """Yields the method's paths in REST; those with a colon are for the edge only."""
    rule: HttpRule = method.options.Extensions[annotations_pb2.http]  # in the stubs an extension has no type of its own
    for binding in (rule, *rule.additional_bindings):
        verb = binding.WhichOneof("pattern")
        path = getattr(binding, verb) if verb else ":"
        if ":" not in path:
            yield f"{verb.upper()} {path}"


def _field(message: DescriptorProto, field: FieldDescriptorProto) -> dict[str, Any]:
    entry = next((one for one in message.nested_type if field.type_name.endswith(f".{message.name}.{one.name}")), None)
    if entry is not None:
        kind = f"map of {_type(entry.field[0])} to {_type(entry.field[1])}"
    else:
        kind = f"{_label(field)}{_type(field)}"
    return {"number": field.number, "type": kind, "json": field.json_name}


def _label(field: FieldDescriptorProto) -> str:
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        return "repeated "
    return "optional " if field.proto3_optional else ""


def _type(field: FieldDescriptorProto) -> str:
    if field.type_name:
        return _link(field.type_name)
    return f"`{FieldDescriptorProto.Type.Name(field.type).removeprefix('TYPE_').lower()}`"


def _link(type_name: str) -> str:
    """Returns the name of a type, with a link if a page describes it."""
    package, _, name = type_name.removeprefix(".").rpartition(".")
    if package not in PACKAGES:
        return f"`{package}.{name}`"
    return f"[`{name}`]({PACKAGES[package][1]}#{name.lower()})"
