"""Builds message classes from the shipped descriptors, with any protobuf from 5 to 7."""

from pathlib import Path
from typing import Any

# The descriptors import these files, which the pool has to know first.
from google.api import annotations_pb2, httpbody_pb2
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2, timestamp_pb2
from google.protobuf.internal import enum_type_wrapper

__all__ = ["annotations_pb2", "httpbody_pb2", "struct_pb2", "timestamp_pb2"]


def _load() -> dict[str, Any]:
    """Adds the files to the default pool, where `google.protobuf` has its own types; returns them by name."""
    data = (Path(__file__).parent / "v1" / "descriptors.binpb").read_bytes()
    pool = descriptor_pool.Default()
    found = {}
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        pool.AddSerializedFile(file.SerializeToString())
        found[file.name] = pool.FindFileByName(file.name)
    return found


_FILES = _load()


def definitions(file: str) -> dict[str, Any]:
    """Returns the names that protoc would define in the module of a file: messages, enums and the enums' values."""
    descriptor = _FILES[file]
    names: dict[str, Any] = {"DESCRIPTOR": descriptor}
    for name, message in descriptor.message_types_by_name.items():
        names[name] = message_factory.GetMessageClass(message)
        names[name].__module__ = file.removesuffix(".proto").replace("/", ".") + "_pb2"  # where pickle finds it
    for name, enum in descriptor.enum_types_by_name.items():
        names[name] = enum_type_wrapper.EnumTypeWrapper(enum)
        names |= {value.name: value.number for value in enum.values}
    return names
