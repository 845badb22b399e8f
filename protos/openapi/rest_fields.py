"""Leaves fields that REST does not have out of a descriptor: `python -m protos.openapi.rest_fields COMMENTED OUTPUT`.

Envoy's transcoder builds the fields of a type anew in each call, and keeps them until it ends: 0.3 KB a field.
"""

import sys
from pathlib import Path

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorSet

from protos.openapi.descriptor import PACKAGE, Protos, is_grpc_only, read


def main(commented: Path, output: Path) -> None:
    """Rewrites the descriptor set `output`. `commented` is the same with comments, which name the fields."""
    protos = read(commented)
    files = FileDescriptorSet.FromString(output.read_bytes())
    for file in files.file:
        for message in file.message_type if file.package == PACKAGE else ():
            _remove(message, _grpc_only(protos, message))
    output.write_bytes(files.SerializeToString())


def _grpc_only(protos: Protos, message: DescriptorProto) -> set[str]:
    return {field.name for field in message.field if is_grpc_only(protos, message.name, field)}


def _remove(message: DescriptorProto, names: set[str]) -> None:
    """Removes fields, and the oneofs that have no other field: each optional field is the only one of a oneof."""
    kept = [field for field in message.field if field.name not in names]
    oneofs = sorted({field.oneof_index for field in kept if field.HasField("oneof_index")})
    for field in kept:
        if field.HasField("oneof_index"):
            field.oneof_index = oneofs.index(field.oneof_index)
    rest = DescriptorProto(field=kept, oneof_decl=[message.oneof_decl[place] for place in oneofs])
    message.ClearField("field")
    message.ClearField("oneof_decl")
    message.MergeFrom(rest)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
