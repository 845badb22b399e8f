"""`extra` and `extra_json` on their way in and out: what is inside the service is text."""

import json

import pytest
from google.protobuf import json_format

from parley.core.errors import InvalidRequest
from parley.rpc import unknown_fields
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk, CreateChatCompletionRequest


def _read(request: CreateChatCompletionRequest) -> CreateChatCompletionRequest:
    unknown_fields.read(request, request.SerializeToString())
    return request


def _request(**message: object) -> CreateChatCompletionRequest:
    request = CreateChatCompletionRequest(model="m")
    json_format.ParseDict({"role": "user", "content": "Hi", **message}, request.messages.add())
    return request


def test_a_struct_becomes_text_at_every_level() -> None:
    """Backends and stores look at the text only."""
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
    """A caller that sends both means the exact one."""
    request = _read(_request(extra={"a": 1}, extra_json='{"a": 2}'))
    assert '{"a": 2}' == request.messages[0].extra_json
    assert not request.messages[0].HasField("extra")


def test_a_field_of_any_json_type_may_come_as_text() -> None:
    """The core reads it as nearly as a double allows; the text stays exact."""
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
        ({"extra_json": '{"a": 1} {}'}, "messages[0].extra_json", "must be the text of a JSON object"),
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
def test_what_is_refused_is_named(message: dict[str, object], param: str, text: str) -> None:
    """No JSON object, a field of the message itself."""
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
def test_a_parameter_that_repeats_a_field_is_refused(fields: dict[str, object]) -> None:
    """A field of any JSON type, too, unless the text has the digits of its numbers."""
    request = json_format.ParseDict({"model": "m", **fields}, CreateChatCompletionRequest())
    with pytest.raises(InvalidRequest) as rejected:
        _read(request)
    assert "extra_body.stop" == rejected.value.param
    assert rejected.value.message == "`extra_body.stop` repeats a field of its object; set `stop`"


def test_vendors_fields_of_our_names_are_theirs() -> None:
    """A vendor may have a field that is called `extra`."""
    request = _read(_request(extra_json='{"extra": 1, "extra_json": {}}'))
    assert '{"extra": 1, "extra_json": {}}' == request.messages[0].extra_json


def test_answers_have_both_forms() -> None:
    """A gRPC caller gets the Struct beside the text, whole and in chunks; too deep for a Struct is text alone."""
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


def test_a_number_of_any_size_and_any_depth_may_come_as_text() -> None:
    """The field holds what it can: infinity for what no double comes near, null below its deepest level."""
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
def test_what_is_no_json_object_is_refused_beside_large_numbers(text: str) -> None:
    """Numbers of any size are JSON; halves of surrogate pairs and words for numbers are not."""
    with pytest.raises(InvalidRequest, match="must be the text of a JSON object"):
        _read(_request(extra_json=text))
