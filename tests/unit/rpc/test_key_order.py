"""The order of the keys in JSON Schemas is kept from the wire."""

import json
import random
import struct

import pytest
from google.protobuf import struct_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from hypothesis import given
from hypothesis import strategies as st

from parley.rpc import request_forms
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest

_FIELDS = set(CreateChatCompletionRequest.DESCRIPTOR.fields_by_name)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=5),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(max_size=4).filter(lambda key: key not in _FIELDS), JSON, max_size=8)


def _varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _struct(value: dict[str, object]) -> bytes:
    """Encodes a Struct as Envoy does: its entries in the order of the JSON."""
    entries = (_field(1, key.encode()) + _field(2, _value(item)) for key, item in value.items())
    return b"".join(_field(1, entry) for entry in entries)


def _value(value: object) -> bytes:
    if value is None:
        return b"\x08\x00"
    if isinstance(value, bool):
        return b"\x20" + bytes([value])
    if isinstance(value, int | float):
        return b"\x11" + struct.pack("<d", value)
    if isinstance(value, str):
        return _field(3, value.encode())
    if isinstance(value, dict):
        return _field(5, _struct(value))
    assert isinstance(value, list)
    return _field(6, b"".join(_field(1, _value(item)) for item in value))


def _read(data: bytes) -> CreateChatCompletionRequest:
    request = CreateChatCompletionRequest.FromString(data)
    request_forms.read(request, data)
    return request


@given(OBJECTS)
def test_parameters_keep_their_order_and_integers(schema: dict[str, object]) -> None:
    """Parameters decode to the same JSON text: keys in order, integers without a decimal point."""
    data = _field(19, _field(1, b"function") + _field(2, _field(1, b"f") + _field(3, _struct(schema))))
    function = _read(data).tools[0].function
    expected = json.dumps(schema, ensure_ascii=False, separators=(",", ":"))
    assert json.dumps(json.loads(function.parameters_json), ensure_ascii=False, separators=(",", ":")) == expected
    assert not function.HasField("parameters")


def test_functions_and_response_formats_keep_their_order() -> None:
    """The schemas of functions, tools and response formats are all decoded in order."""
    keys = [f"k{number}" for number in random.Random(7).sample(range(1000), 40)]
    schema: dict[str, object] = {key: number for number, key in enumerate(keys)}
    function = _field(22, _field(1, b"f") + _field(3, _struct(schema)))
    form = _field(24, _field(1, b"json_schema") + _field(2, _field(1, b"s") + _field(3, _struct(schema))))
    request = _read(function + form)
    assert keys == list(json.loads(request.functions[0].parameters_json))
    assert keys == list(json.loads(request.response_format.json_schema.schema_json))


@given(OBJECTS, OBJECTS)
def test_extra_body_keeps_its_order(first: dict[str, object], second: dict[str, object]) -> None:
    """`extra_body` keeps its order when its encoding comes in parts; the later part wins for a repeated key."""
    request = _read(_field(36, _struct(first)) + _field(1, b"m") + _field(36, _struct(second)))
    expected = json.dumps(first | second, ensure_ascii=False, separators=(",", ":"))
    assert expected == json.dumps(json.loads(request.extra_body_json), ensure_ascii=False, separators=(",", ":"))
    assert ("m", False) == (request.model, request.HasField("extra_body"))


def test_json_text_of_the_caller_wins_over_the_struct() -> None:
    """The `parameters_json` of a gRPC caller is not changed."""
    request = CreateChatCompletionRequest()
    tool = request.tools.add(type="function")
    tool.function.name = "f"
    tool.function.parameters["a"] = 1
    tool.function.parameters_json = '{"b": 2}'
    request.extra_body["a"] = 1
    request.extra_body_json = '{"b": 3}'
    read = _read(request.SerializeToString())
    assert '{"b": 3}' == read.extra_body_json
    assert '{"b": 2}' == read.tools[0].function.parameters_json


def test_the_twin_does_not_change_the_real_struct() -> None:
    """Creating the twin does not change the real message types."""
    file = FileDescriptorProto()
    struct_pb2.DESCRIPTOR.CopyToProto(file)
    entry: DescriptorProto = next(m for m in file.message_type if m.name == "Struct").nested_type[0]
    assert entry.options.map_entry
    assert FieldDescriptorProto.LABEL_OPTIONAL == entry.field[0].label


def test_a_request_without_schemas_is_decoded_once() -> None:
    """A request without schemas is not decoded by the twin, which would reject these bytes."""
    request = CreateChatCompletionRequest()
    request_forms.read(request, b"\xff")
    with pytest.raises(Exception, match="rror"):
        CreateChatCompletionRequest.FromString(b"\xff")


def test_maps_beside_structs_stay() -> None:
    """A request with `metadata`, `logit_bias` and an object of its own keeps all of them."""
    request = CreateChatCompletionRequest(metadata={"user": "ada"}, logit_bias={"50256": -100})
    request.extra_body["a"] = 1
    read = _read(request.SerializeToString())
    assert ({"user": "ada"}, {"50256": -100}) == (dict(read.metadata), dict(read.logit_bias))
    assert '{"a":1}' == read.extra_body_json
