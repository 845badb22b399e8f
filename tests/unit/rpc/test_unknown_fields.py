"""`extra` and `extra_json` in requests and answers: inside the service they are text."""

import json

import pytest
from google.protobuf import json_format

from parley.core.errors import InvalidRequest
from parley.rpc import request_forms, unknown_fields
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk, CreateChatCompletionRequest


def _read(request: CreateChatCompletionRequest) -> CreateChatCompletionRequest:
    request_forms.read(request, request.SerializeToString())
    return request


def _request(**message: object) -> CreateChatCompletionRequest:
    request = CreateChatCompletionRequest(model="m")
    json_format.ParseDict({"role": "user", "content": "Hi", **message}, request.messages.add())
    return request


def test_a_struct_becomes_text_at_every_level() -> None:
    """A Struct becomes text at every level of a request, as backends and stores read only the text."""
    request = _request(extra={"cache_control": {"type": "ephemeral"}})
    request.messages[0].tool_calls.add(id="c").function.extra["x"] = 1
    request.tools.add(type="function").extra["y"] = None
    request.response_format.json_schema.extra["z"] = [True]
    _read(request)
    assert {"cache_control": {"type": "ephemeral"}} == json.loads(request.messages[0].extra_json)
    assert '{"x":1}' == request.messages[0].tool_calls[0].function.extra_json
    assert '{"y":null}' == request.tools[0].extra_json
    assert '{"z":[true]}' == request.response_format.json_schema.extra_json
    assert not request.messages[0].HasField("extra")


def test_text_wins_over_the_struct() -> None:
    """Where a request has both forms, the text wins."""
    request = _read(_request(extra={"a": 1}, extra_json='{"a": 2}'))
    assert '{"a": 2}' == request.messages[0].extra_json
    assert not request.messages[0].HasField("extra")


def test_a_field_of_any_json_type_may_be_sent_as_text() -> None:
    """A field of any JSON type that is sent as text is set to the nearest doubles; the text stays exact."""
    text = '{"content": [{"type": "t", "n": 18446744073709551617}], "annotations": [{"a": 1}]}'
    request = CreateChatCompletionRequest(model="m")
    request.messages.add(role="user", extra_json=text)
    request.tools.add(type="custom").custom.extra_json = '{"format": {"n": 0.10000000000000000001}}'
    request.extra_body_json = '{"tool_choice": {"type": "t", "n": 18446744073709551617}, "top_k": 5}'
    _read(request)
    part = request.messages[0].content.list_value.values[0].struct_value
    assert ("t", 2.0**64) == (part["type"], part["n"])
    assert 1 == request.messages[0].annotations[0]["a"]
    assert text == request.messages[0].extra_json
    again = CreateChatCompletionRequest.FromString(request.SerializeToString())
    assert request == _read(again)  # as another Parley gets it
    assert 0.1 == request.tools[0].custom.format["n"]
    assert ("t", 2.0**64) == (request.tool_choice.struct_value["type"], request.tool_choice.struct_value["n"])


@pytest.mark.parametrize(
    ("message", "param", "text"),
    [
        ({"extra_json": "{"}, "messages[0].extra_json", "`messages[0].extra_json` must be the text of a JSON object"),
        ({"extra_json": "[]"}, "messages[0].extra_json", "`messages[0].extra_json` must be the text of a JSON object"),
        (
            {"extra_json": '{"a": 1, "a": 2}'},
            "messages[0].extra_json",
            "`messages[0].extra_json` has the key `a` twice",
        ),
        ({"extra_json": r'{"b": [{"a": 1, "\u0061": {}}]}'}, "messages[0].extra_json", "has the key `a` twice"),
        ({"extra_json": '{"a": 1} {}'}, "messages[0].extra_json", "must be the text of a JSON object"),
        (
            {"extra_json": '{"a":' + "[" * 101 + "]" * 101 + "}"},
            "messages[0].extra_json",
            "`messages[0].extra_json` is nested too deeply; a value may have at most 100 levels",
        ),
        ({"extra_json": '{"a":' + "[" * 1_000 + "]" * 1_000 + "}"}, "messages[0].extra_json", "nested too deeply"),
        (
            {"extra_json": '{"role": "user"}'},
            "messages[0].extra_json.role",
            "`messages[0].extra_json.role` repeats a field of its object; set `messages[0].role`",
        ),
        ({"extra": {"name": "n"}}, "messages[0].extra_json.name", "repeats a field"),
        ({"extra_json": '{"annotations": {}}'}, "messages[0].annotations", "must be an array of objects"),
        (
            {"tool_calls": [{"function": {"extra_json": '{"name": "f"}'}}]},
            "messages[0].tool_calls[0].function.extra_json.name",
            "set `messages[0].tool_calls[0].function.name`",
        ),
    ],
)
def test_an_invalid_text_is_rejected_by_name(message: dict[str, object], param: str, text: str) -> None:
    """Text that is not a JSON object, or repeats a field of its message, is rejected with the name of the field."""
    with pytest.raises(InvalidRequest) as rejected:
        _read(_request(**message))
    assert param == rejected.value.param
    assert text in rejected.value.message


@pytest.mark.parametrize(
    "fields",
    [
        {"extra_body": {"stop": ["a"]}},
        {"extra_body_json": '{"stop": ["a"]}'},
        {"extra_body_json": '{"stop": [1]}', "stop": ["a"]},
        {"extra_body_json": '{"stop": null}'},
        {"extra_body": {"stop": True}},
    ],
)
def test_a_parameter_that_repeats_a_field_is_rejected(fields: dict[str, object]) -> None:
    """A parameter that repeats a field is rejected, unless it is the exact text of a field of any JSON type."""
    request = json_format.ParseDict({"model": "m", **fields}, CreateChatCompletionRequest())
    with pytest.raises(InvalidRequest) as rejected:
        _read(request)
    assert "extra_body.stop" == rejected.value.param
    assert rejected.value.message == "`extra_body.stop` repeats a field of its object; set `stop`"


def test_a_vendor_field_may_be_named_extra() -> None:
    """A vendor's field may be named `extra`."""
    request = _read(_request(extra_json='{"extra": 1, "extra_json": {}}'))
    assert '{"extra": 1, "extra_json": {}}' == request.messages[0].extra_json


def test_answers_have_both_forms() -> None:
    """An answer and a chunk have the Struct beside the text; nested too deeply for a Struct they have only the text."""
    completion = ChatCompletion(extra_json='{"citations": ["u"]}')
    choice = completion.choices.add()
    choice.message.tool_calls.add(id="c", extra_json='{"n": 18446744073709551617}')
    choice.message.extra_json = '{"a":' * 90 + "1" + "}" * 90
    unknown_fields.fill_structs(completion)
    assert {"citations": ["u"]} == json_format.MessageToDict(completion.extra)
    assert 2.0**64 == choice.message.tool_calls[0].extra["n"]
    assert '{"n": 18446744073709551617}' == choice.message.tool_calls[0].extra_json
    assert not choice.message.HasField("extra")
    chunk = ChatCompletionChunk()
    chunk.choices.add().delta.extra_json = '{"images": []}'
    unknown_fields.fill_structs(chunk)
    assert {"images": []} == json_format.MessageToDict(chunk.choices[0].delta.extra)


def test_text_may_have_numbers_of_any_size_and_any_depth() -> None:
    """A number too large for a double is infinity in the field; values nested too deeply are null there."""
    deep = "[" * 60 + "]" * 60
    text = '{"content":[{"type":"t","n":1e400,"m":' + "9" * 5000 + ',"deep":' + deep + "}]}"
    request = CreateChatCompletionRequest(model="m")
    request.messages.add(role="user", extra_json=text)
    _read(request)
    part = request.messages[0].content.list_value.values[0].struct_value
    assert ("t", float("inf"), float("inf")) == (part["type"], part["n"], part["m"])
    assert text == request.messages[0].extra_json
    assert request == CreateChatCompletionRequest.FromString(request.SerializeToString())


@pytest.mark.parametrize(
    "text", ['{"a":"\\ud800"}', '{"a":NaN}', '{"a":1e400,}', '{"a":1e400,"b":"\\udc00"}', "[1e400]"]
)
def test_invalid_json_is_rejected_beside_large_numbers(text: str) -> None:
    """Numbers of any size are JSON; lone surrogates and NaN or Infinity are not."""
    with pytest.raises(InvalidRequest, match="must be the text of a JSON object"):
        _read(_request(extra_json=text))
