"""Typed forms of fields whose JSON is of several types: inside the service they are the JSON's own fields."""

import json
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Value

from parley.core.errors import InvalidRequest
from parley.core.messages.proto_json import dumps, from_message, from_value
from parley.core.messages.typed_fields import TYPED_FIELDS
from parley.core.sessions.idempotency import digest
from parley.rpc import request_forms, typed_forms
from parley.v1.chat_completions_pb2 import ChatCompletion, CreateChatCompletionRequest
from parley.v1.message_pb2 import Choice, ContentPart, ImageContent, Message
from parley.v1.sessions_pb2 import ListSessionMessagesResponse, SessionMessage
from protos.openapi.descriptor import PACKAGE, is_grpc_only, read

PDF, PNG = "data:application/pdf;base64,JVBERg==", "data:image/png;base64,iVBORw=="
F, G = ({"type": kind, kind: {"name": name}} for kind, name in (("function", "f"), ("custom", "g")))
TOOLS = {"tools": [{"type": "function", "function": {"name": "f"}}]}


def deep(levels: int) -> str:
    """Returns the text of a JSON object with a value of so many levels."""
    return '{"type":"t","a":' + "[" * levels + "]" * levels + "}"


def read_request(**fields: Any) -> CreateChatCompletionRequest:
    """Returns a request as the core reads it."""
    request = ParseDict({"model": "m", **fields}, CreateChatCompletionRequest())
    typed_forms.infer_types(request, request_forms.read(request, request.SerializeToString()))
    return request


def faults_of(**fields: Any) -> list[tuple[str, str]]:
    """Returns the fields and messages with which a request is rejected."""
    with pytest.raises(InvalidRequest) as rejected:
        read_request(**fields)
    return [(violation.field, violation.message) for violation in rejected.value.violations]


@pytest.mark.parametrize(
    ("typed", "content"),
    [
        ({"text": "hi"}, "hi"),
        ({"text": ""}, ""),
        ({"content": "hi", "text": "hi"}, "hi"),
        ({"parts": [{"text": "a"}, {"text": ""}]}, [{"type": "text", "text": "a"}, {"type": "text", "text": ""}]),
        ({"parts": [{"image": {"url": "https://a.b"}}]}, [{"type": "image_url", "image_url": {"url": "https://a.b"}}]),
        (
            {"parts": [{"image": {"data": "iVBORw==", "mime_type": "image/png", "detail": "low"}}]},
            [{"type": "image_url", "image_url": {"url": PNG, "detail": "low"}}],
        ),
        (
            {"parts": [{"audio": {"data": "UklGRg==", "format": "wav"}}]},
            [{"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}],
        ),
        ({"parts": [{"file": {"file_id": "file-1"}}]}, [{"type": "file", "file": {"file_id": "file-1"}}]),
        (
            {"parts": [{"file": {"data": "JVBERg==", "mime_type": "application/pdf", "filename": "a.pdf"}}]},
            [{"type": "file", "file": {"filename": "a.pdf", "file_data": PDF}}],
        ),
        ({"parts": [{"refusal": "no"}]}, [{"type": "refusal", "refusal": "no"}]),
    ],
)
def test_typed_content_becomes_content(typed: dict[str, Any], content: Any) -> None:
    """Text and parts become the content of OpenAI's API, so that both forms are the same request."""
    plain = read_request(messages=[{"role": "user", "content": content}])
    assert plain == read_request(messages=[{"role": "user", **typed}])


@pytest.mark.parametrize(
    ("typed", "plain"),
    [
        ({"stop_sequences": ["a", "b"]}, {"stop": ["a", "b"]}),
        ({"typed_tool_choice": {"mode": "required"}}, {"tool_choice": "required"}),
        ({"typed_tool_choice": {"function_name": "f"}}, {"tool_choice": F}),
        ({"typed_tool_choice": {"custom_tool_name": "g"}}, {"tool_choice": G}),
        (
            {"typed_tool_choice": {"allowed_tools": {"function_names": ["f"], "custom_tool_names": ["g"]}}},
            {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [F, G]}}},
        ),
        (
            {"typed_tool_choice": {"allowed_tools": {"mode": "required", "function_names": ["f"]}}},
            {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [F]}}},
        ),
        ({"typed_function_call": {"mode": "none"}}, {"function_call": "none"}),
        ({"typed_function_call": {"function_name": "f"}}, {"function_call": {"name": "f"}}),
        ({"audio": {"voice_name": "alloy"}}, {"audio": {"voice": "alloy"}}),
        ({"audio": {"voice_id": "v"}}, {"audio": {"voice": {"id": "v"}}}),
        ({"prediction": {"text": "p"}}, {"prediction": {"type": "content", "content": "p"}}),
        (
            {"prediction": {"parts": [{"text": "p"}]}},
            {"prediction": {"type": "content", "content": [{"type": "text", "text": "p"}]}},
        ),
        ({"tools": [{"function": {"name": "f"}}]}, TOOLS),
        (
            {"tools": [{"custom": {"name": "g", "grammar": {"syntax": "regex", "definition": "a+"}}}]},
            {
                "tools": [
                    {
                        "type": "custom",
                        "custom": {
                            "name": "g",
                            "format": {"type": "grammar", "grammar": {"syntax": "regex", "definition": "a+"}},
                        },
                    }
                ]
            },
        ),
        (
            {"response_format": {"json_schema": {"name": "s"}}},
            {"response_format": {"type": "json_schema", "json_schema": {"name": "s"}}},
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"custom": {"name": "g"}}]}]},
            {"messages": [{"role": "assistant", "tool_calls": [{"type": "custom", "custom": {"name": "g"}}]}]},
        ),
        (
            {"tools": [{"type": "web", "function": {"name": "f"}}]},
            {"tools": [{"type": "web", "function": {"name": "f"}}]},
        ),
        ({"tools": [{}]}, {"tools": [{"type": ""}]}),
    ],
)
def test_other_typed_forms_become_their_fields(typed: dict[str, Any], plain: dict[str, Any]) -> None:
    """Each typed form becomes its field, and an empty type is set where the other fields allow one type only."""
    assert read_request(**plain) == read_request(**typed)


def test_both_forms_are_one_request_of_an_idempotency_key() -> None:
    """A retry in another form has the same digest."""
    typed = read_request(messages=[{"role": "user", "parts": [{"text": "a"}]}], stop_sequences=["x"])
    plain = read_request(messages=[{"role": "user", "content": [{"type": "text", "text": "a"}]}], stop=["x"])
    assert digest(plain) == digest(typed)


def test_a_part_keeps_its_unknown_fields_exactly() -> None:
    """Unknown fields of a part, and a part as JSON, keep their numbers and order in the text of the content."""
    json_part = '{ "type":"video", "z":1.0, "a":18446744073709551617, "deep":' + "[" * 60 + "]" * 60 + "}"
    extra = {"extra_json": '{"cache_control": {"type": "ephemeral"}, "n": 1e400}'}
    parts = [{"text": "a", **extra}, {"json": json_part}]
    [message] = read_request(messages=[{"role": "user", "extra_json": '{"id": 7}', "parts": parts}]).messages
    first = '{"type":"text","text":"a","cache_control": {"type": "ephemeral"}, "n": 1e400}'
    assert f'{{"id": 7,"content":[{first},{json_part}]}}' == message.extra_json
    data = from_value(message.content)
    assert [{"type": "ephemeral"}, 2**64] == [data[0]["cache_control"], int(data[1]["a"])]
    assert json.loads(message.extra_json)["content"][1]["type"] == data[1]["type"]


def test_the_deepest_part_is_read_again() -> None:
    """A part of the most levels is read by another Parley, and written in the JSON of a session."""
    [message] = read_request(messages=[{"role": "user", "parts": [{"json": deep(98)}]}]).messages
    again = CreateChatCompletionRequest(messages=[message])
    request_forms.read(again, again.SerializeToString())
    assert [message] == list(again.messages)
    assert deep(98) in dumps(from_message(message)).decode()


def test_unknown_fields_may_be_a_struct() -> None:
    """The unknown fields of a part may be a Struct, whose order of keys is kept as everywhere."""
    part = ContentPart(text="a")
    part.extra.update({"b": 1})
    request = CreateChatCompletionRequest(messages=[Message(role="user", parts=[part])])
    request_forms.read(request, request.SerializeToString())
    assert '{"content":[{"type":"text","text":"a","b":1}]}' == request.messages[0].extra_json


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        (
            {"messages": [{"content": "a", "text": "b"}]},
            "messages[0].text",
            "`messages[0].content` and `messages[0].text` are forms of one value; set one of them",
        ),
        (
            {"messages": [{"text": "a", "parts": [{"text": "a"}]}]},
            "messages[0].parts",
            "`messages[0].text` and `messages[0].parts` are forms of one value; set one of them",
        ),
        ({"messages": [{"content": None, "text": ""}]}, "messages[0].text", "are forms of one value"),
        ({"messages": [{"extra_json": '{"content": [1]}', "text": "a"}]}, "messages[0].text", "are forms of one value"),
        (
            {"stop": "a", "stop_sequences": ["a"]},
            "stop_sequences",
            "`stop` and `stop_sequences` are forms of one value",
        ),
        (
            {"tool_choice": "auto", "typed_tool_choice": {"mode": "auto"}},
            "typed_tool_choice",
            "`tool_choice` and `typed_tool_choice` are forms of one value",
        ),
        (
            {"function_call": "auto", "typed_function_call": {"mode": "auto"}},
            "typed_function_call",
            "`function_call` and `typed_function_call` are forms of one value",
        ),
        (
            {"audio": {"voice_name": "a", "voice_id": "b"}},
            "audio.voice_id",
            "`audio.voice_name` and `audio.voice_id` are forms of one value",
        ),
        (
            {"tools": [{"custom": {"format": {"type": "text"}, "grammar": {"syntax": "a", "definition": "b"}}}]},
            "tools[0].custom.grammar",
            "`tools[0].custom.format` and `tools[0].custom.grammar` are forms of one value",
        ),
        (
            {"prediction": {"content": "a", "text": "b"}},
            "prediction.text",
            "`prediction.content` and `prediction.text` are forms of one value",
        ),
        ({"typed_tool_choice": {}}, "typed_tool_choice", "must have one of mode, function_name, custom_tool_name or"),
        ({"typed_tool_choice": {"allowed_tools": {}}}, "typed_tool_choice", "must not be empty"),
        ({"typed_function_call": {"mode": ""}}, "typed_function_call", "must have one of mode or function_name"),
        ({"tools": [{"custom": {"grammar": {"syntax": "a"}}}]}, "tools[0].custom.grammar.definition", "is required"),
    ],
)
def test_forms_that_contradict_each_other_are_rejected(fields: dict[str, Any], field: str, message: str) -> None:
    """A value in two forms, and a typed form without a value, are rejected with the names of the fields."""
    [(found, text)] = faults_of(**fields)
    assert field == found
    assert message in text


@pytest.mark.parametrize(
    ("part", "field", "message"),
    [
        ({}, "", "must have one of text, image, audio, file, refusal or json"),
        ({"image": {}}, ".image", "must have either `url` or `data`"),
        ({"image": {"url": "u", "data": "aa"}}, ".image", "must have either `url` or `data`"),
        ({"image": {"data": "aaaa"}}, ".image.mime_type", "must be the media type of `data`"),
        ({"image": {"data": "aaaa", "mime_type": "image/ä"}}, ".image.mime_type", "must be the media type of `data`"),
        ({"image": {"data": "aaaa", "mime_type": "png;x,"}}, ".image.mime_type", "must be the media type of `data`"),
        ({"image": {"url": "u", "mime_type": "image/png"}}, ".image.mime_type", "leave it out beside `url`"),
        ({"audio": {"format": "wav"}}, ".audio.data", "is required"),
        ({"audio": {"data": "aaaa"}}, ".audio.format", "is required"),
        ({"file": {"filename": "a"}}, ".file", "must have either `file_id` or `data`"),
        ({"json": "[]"}, ".json", "must be the text of a JSON object with a `type`"),
        ({"json": deep(99)}, ".json", "is nested too deeply; it may have at most 99 levels"),
        ({"json": deep(1_000)}, ".json", "is nested too deeply"),
        ({"json": deep(100_000)}, ".json", "must be the text of a JSON object with a `type`"),
        (
            {"refusal": "a", "extra_json": deep(99).replace("type", "b")},
            ".extra_json",
            "is nested too deeply; it may have at most 99 levels",
        ),
        ({"text": "a", "extra_json": deep(1_000)}, ".extra_json", "is nested too deeply"),
        ({"json": '{"type": 1}'}, ".json", "must be the text of a JSON object with a `type`"),
        ({"text": "a", "extra_json": "{"}, ".extra_json", "must be the text of a JSON object"),
        ({"text": "a", "extra_json": '{"type": "x"}'}, ".extra_json.type", "repeats a field of the part"),
        ({"image": {"url": "u"}, "extra": {"image_url": 1}}, ".extra_json.image_url", "repeats a field of the part"),
    ],
)
def test_a_part_is_validated(part: dict[str, Any], field: str, message: str) -> None:
    """A part without content, and one whose fields contradict each other, is rejected with the path of the field."""
    [(found, text)] = faults_of(messages=[{"role": "user", "parts": [{"text": "ok"}, part]}])
    assert f"messages[0].parts[1]{field}" == found
    assert message in text


def test_all_faults_are_reported() -> None:
    """Several faults are reported together."""
    messages = [{"content": "a", "text": "b"}, {"parts": [{}, {"json": "x"}]}]
    fields = [field for field, _ in faults_of(messages=messages, stop="a", stop_sequences=["b"])]
    assert ["messages[0].text", "messages[1].parts[0]", "messages[1].parts[1].json", "stop_sequences"] == fields


def test_an_answer_has_text_beside_content() -> None:
    """An answer and the messages of a session have `text` where the content is a string, and may be sent back as is."""
    contents = (Value(string_value="hi"), Value(null_value=0), None)  # type: ignore[arg-type]
    messages = [Message(role="assistant", content=content) for content in contents]
    answer = ChatCompletion(choices=[Choice(message=message) for message in messages])
    page = ListSessionMessagesResponse(messages=[SessionMessage(message=message) for message in messages])
    typed_forms.set_text(answer)
    typed_forms.set_text(page)
    assert ["hi", None, None] == [c.message.text if c.message.HasField("text") else None for c in answer.choices]
    assert ["hi", "", ""] == [kept.message.text for kept in page.messages]
    again = CreateChatCompletionRequest(messages=[choice.message for choice in answer.choices])
    request_forms.read(again, again.SerializeToString())
    assert messages == list(again.messages)


def test_a_very_long_content_is_not_doubled() -> None:
    """A very long content has no `text` beside it: clients accept messages of 4 MiB by default."""
    texts = ["a" * 262_144, "a" * 262_145]
    answer = ChatCompletion(choices=[Choice(message=Message(content=Value(string_value=text))) for text in texts])
    typed_forms.set_text(answer)
    assert [True, False] == [choice.message.HasField("text") for choice in answer.choices]


def test_the_constructors_are_pleasant() -> None:
    """A message and a part are one expression each."""
    image = ContentPart(image=ImageContent(data=b"\x89PNG", mime_type="image/png"))
    request = CreateChatCompletionRequest(
        messages=[Message(role="user", text="hi"), Message(role="user", parts=[ContentPart(text="What?"), image])],
        stop_sequences=["\n"],
    )
    request_forms.read(request, request.SerializeToString())
    content = [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": PNG}}]
    assert ["hi", content] == [from_value(message.content) for message in request.messages]


def test_the_table_names_what_the_comments_call_typed() -> None:
    """The table of typed fields has every field of a request that the comments of the protos call gRPC only."""
    protos = read(Path(__file__).parents[3] / "edge" / "parley.binpb")
    marked = {
        (f"{PACKAGE}.{message.name}", field.name)
        for message in protos.messages.values()
        for field in message.field
        if is_grpc_only(protos, message.name, field) and not message.name.endswith("Chunk")
    }
    table = {(kind, name) for kind, names in TYPED_FIELDS.items() for name in names}
    assert table == marked
