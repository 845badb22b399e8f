"""Server reflection, v1 and v1alpha, which also finds methods by name.

The versions differ only in the name of their package; grpcio has only v1alpha.
"""

from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection, reflection_pb2

_OLD, _NEW = "grpc.reflection.v1alpha", "grpc.reflection.v1"
_SERVICE = f"{_NEW}.ServerReflection"


class _Symbols:
    """A descriptor pool that also finds the file of a method, `package.Service.Method`, unlike Python's own."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    def FindFileContainingSymbol(self, name: str) -> FileDescriptor:
        """Returns the file that defines a symbol. Raises KeyError."""
        try:
            file: FileDescriptor = self._pool.FindFileContainingSymbol(name)
        except KeyError:
            service, _, method = name.rpartition(".")
            found = self._pool.FindServiceByName(service)
            file = found.methods_by_name[method].containing_service.file
        return file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)


def add_reflection(services: Sequence[str], server: grpc.aio.Server) -> None:
    """Adds reflection of the services, given by their full names, and of reflection itself."""
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(_renamed().SerializeToString())
    names = (*services, reflection.SERVICE_NAME, _SERVICE)
    servicer = reflection.aio.ReflectionServicer(names, _Symbols(pool))
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for name in (reflection.SERVICE_NAME, _SERVICE):
        generic = grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler})
        server.add_generic_rpc_handlers((generic,))


def _renamed() -> FileDescriptorProto:
    """Returns the file descriptor of v1: that of v1alpha with the package renamed."""
    file = FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    file.name, file.package = file.name.replace("v1alpha", "v1"), _NEW
    typed = [field for message in file.message_type for field in message.field if field.type_name]
    for field in typed:
        field.type_name = field.type_name.replace(_OLD, _NEW)
    for method in file.service[0].method:
        method.input_type = method.input_type.replace(_OLD, _NEW)
        method.output_type = method.output_type.replace(_OLD, _NEW)
    return file
