"""The messages of Envoy's service `envoy.service.auth.v3.Authorization`, with the fields that Parley uses.

They are described here, because code generated from Envoy's protos has the name of the package that contains Envoy.
"""

from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto

_PACKAGE = "envoy.service.auth.v3"
_SCALARS = {"string": FieldDescriptorProto.TYPE_STRING, "int32": FieldDescriptorProto.TYPE_INT32}
# The fields of each message: number and type; `*` for a list.
_MESSAGES = {
    "SocketAddress": {"address": (2, "string")},
    "Address": {"socket_address": (1, "SocketAddress")},
    "Peer": {"address": (1, "Address")},
    "Header": {"key": (1, "string"), "value": (2, "string")},
    "HttpRequest": {"headers": (3, "Header*")},
    "Request": {"http": (2, "HttpRequest")},
    "Attributes": {"source": (1, "Peer"), "request": (4, "Request")},
    "CheckRequest": {"attributes": (1, "Attributes")},
    "Status": {"code": (1, "int32")},
    "HeaderOption": {"header": (1, "Header")},
    "DeniedResponse": {"status": (1, "Status"), "headers": (2, "HeaderOption*")},
    "CheckResponse": {"status": (1, "Status"), "denied_response": (2, "DeniedResponse")},
}


def _file() -> FileDescriptorProto:
    file = FileDescriptorProto(name="parley/authorization.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            one = message.field.add(name=field, number=number, label=FieldDescriptorProto.LABEL_OPTIONAL)
            if kind.endswith("*"):
                one.label = FieldDescriptorProto.LABEL_REPEATED
            one.type = _SCALARS.get(kind, FieldDescriptorProto.TYPE_MESSAGE)
            if kind not in _SCALARS:
                one.type_name = f".{_PACKAGE}.{kind.rstrip('*')}"
    return file


_pool = descriptor_pool.DescriptorPool()
_pool.AddSerializedFile(_file().SerializeToString())


def _class(name: str) -> Any:
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))


CheckRequest = _class("CheckRequest")
CheckResponse = _class("CheckResponse")
