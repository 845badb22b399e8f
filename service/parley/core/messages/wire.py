"""The wire format of protobuf, for messages that are written without making them.

To set the fields of a message, above all of one in another, takes several times as long as to write their bytes.
(Protocol Buffers documentation, "Encoding".)
"""

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_VARINT, _FIXED64, _LENGTH = 0, 1, 2
_WIRE_TYPES = {
    FieldDescriptor.TYPE_UINT32: _VARINT,
    FieldDescriptor.TYPE_BOOL: _VARINT,
    FieldDescriptor.TYPE_DOUBLE: _FIXED64,
    FieldDescriptor.TYPE_STRING: _LENGTH,
    FieldDescriptor.TYPE_BYTES: _LENGTH,
    FieldDescriptor.TYPE_MESSAGE: _LENGTH,
}
_ONE_BYTE = tuple(bytes((number,)) for number in range(128))
_TWO_BYTES = 1 << 14  # numbers below it


def tag(message: type[Message], name: str) -> bytes:
    """Returns the bytes that precede the value of a field."""
    field = message.DESCRIPTOR.fields_by_name[name]
    return varint(field.number << 3 | _WIRE_TYPES[field.type])


def varint(number: int) -> bytes:
    """Writes a number of at least 0; of a bool, 0 or 1."""
    if number < len(_ONE_BYTE):
        return _ONE_BYTE[number]
    if number < _TWO_BYTES:
        return bytes((number & 127 | 128, number >> 7))
    return bytes((number & 127 | 128,)) + varint(number >> 7)


def with_length(data: bytes) -> bytes:
    """Writes the value of a string or a message."""
    size = len(data)
    return (_ONE_BYTE[size] if size < len(_ONE_BYTE) else varint(size)) + data
