"""The elements of a descriptor of the protos, with their comments."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.api import annotations_pb2
from google.api.http_pb2 import HttpRule
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

from parley.core.messages.typed_fields import TYPED_FIELDS

PACKAGE = "parley.v1"

Element = DescriptorProto | EnumDescriptorProto | ServiceDescriptorProto


@dataclass
class Protos:
    """The elements of `parley.v1` by name; `comments` by place: `Session`, `Session.id`, `Sessions.GetSession`."""

    messages: dict[str, DescriptorProto]
    enums: dict[str, EnumDescriptorProto]
    services: dict[str, ServiceDescriptorProto]
    comments: dict[str, str]


def read(path: Path) -> Protos:
    """Reads a descriptor set that was written with source info."""
    protos = Protos({}, {}, {}, {})
    for file in FileDescriptorSet.FromString(path.read_bytes()).file:
        if file.package == PACKAGE:
            protos.messages |= {message.name: message for message in file.message_type}
            protos.enums |= {enum.name: enum for enum in file.enum_type}
            protos.services |= {service.name: service for service in file.service}
            protos.comments |= _comments(file)
    return protos


def http_rules(method: MethodDescriptorProto) -> Iterator[tuple[str, str]]:
    """Yields the method's HTTP bindings: `("post", "/v1/chat/completions")`."""
    # In the stubs an extension has no type of its own.
    rule: HttpRule = method.options.Extensions[annotations_pb2.http]
    for binding in (rule, *rule.additional_bindings):
        verb = binding.WhichOneof("pattern")
        if verb:
            yield verb, getattr(binding, verb)


def local_name(type_name: str) -> str:
    """Returns the type's name without `.parley.v1.`, or without the first dot for types of other packages."""
    return type_name.removeprefix(f".{PACKAGE}.").removeprefix(".")


def is_grpc_only(protos: Protos, message: str, field: FieldDescriptorProto) -> bool:
    """Returns whether the field never appears in the JSON of REST.

    Raises:
        ValueError: The field's comment and the service's table of typed fields disagree.
    """
    is_in_comment = "gRPC only" in protos.comments[f"{message}.{field.name}"]
    if field.name in TYPED_FIELDS.get(f"{PACKAGE}.{message}", ()) and not is_in_comment:
        raise ValueError(f"the comment of {message}.{field.name} must contain 'gRPC only', as a typed field")
    return is_in_comment


def map_value(message: DescriptorProto, field: FieldDescriptorProto) -> FieldDescriptorProto | None:
    """Returns the field of a map's values, or None if the field is not a map."""
    for nested in message.nested_type:
        if nested.options.map_entry and field.type_name.endswith(f".{message.name}.{nested.name}"):
            return nested.field[1]
    return None


def _comments(file: FileDescriptorProto) -> dict[str, str]:
    """Returns the comments of a file by element, each as one line."""
    comments = {tuple(place.path): " ".join(place.leading_comments.split()) for place in file.source_code_info.location}
    return {name: comments.get(path, "") for name, path in _places(file)}


def _places(file: FileDescriptorProto) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yields each element's path in the source info: field numbers of FileDescriptorProto and indexes."""
    members: dict[int, tuple[str, Sequence[Element]]] = {
        4: ("field", file.message_type),
        5: ("value", file.enum_type),
        6: ("method", file.service),
    }
    for number, (kind, elements) in members.items():
        for i, element in enumerate(elements):
            yield element.name, (number, i)
            for j, member in enumerate(getattr(element, kind)):
                yield f"{element.name}.{member.name}", (number, i, 2, j)
