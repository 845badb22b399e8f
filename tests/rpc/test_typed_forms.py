"""Typed forms over gRPC: one form in the core, in sessions and for backends, whichever form the caller writes."""

import json
from typing import Any

import grpc
import pytest

from parley.core.messages.proto_json import from_value
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest, ResponseFormat, ToolChoice
from parley.v1.chat_completions_pb2_grpc import ChatCompletionsStub
from parley.v1.message_pb2 import ContentPart, FunctionDefinition, ImageContent, Message, Tool
from parley.v1.sessions_pb2 import ExportSessionRequest, ForkSessionRequest, ListSessionMessagesRequest
from parley.v1.sessions_pb2_grpc import SessionsStub
from tests.rpc.calling import Metadata, chat_request
from tests.rpc.conftest import Worker

PARTS = [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]


def ask(*messages: Message, **more: Any) -> CreateChatCompletionRequest:
    """Returns a request with these messages."""
    return CreateChatCompletionRequest(messages=messages, **more)


def user_parts() -> Message:
    """Returns a message with text and an image."""
    image = ContentPart(image=ImageContent(url="https://example.com/a.png"))
    return Message(role="user", parts=[ContentPart(text="What?"), image])


def rejected(method: Any, request: CreateChatCompletionRequest, metadata: Metadata) -> str:
    """Returns the message of a call that is rejected as invalid."""
    with pytest.raises(grpc.RpcError) as caught:
        method(request, metadata=metadata)
    error: Any = caught.value
    assert grpc.StatusCode.INVALID_ARGUMENT == error.code()
    return str(error.details())


def test_a_conversation_in_typed_forms(worker: Worker, chat: ChatCompletionsStub, ada: Metadata) -> None:
    """An answer is appended to the next request as it is, and the backend gets the JSON's own fields."""
    first = chat.CreateChatCompletion(ask(Message(role="user", text="Hi"), model="stateless"), metadata=ada)
    answer = first.choices[0].message
    assert ("Hello", "Hello") == (answer.text, answer.content.string_value)
    choice = ToolChoice(function_name="look")
    tools = [Tool(function=FunctionDefinition(name="look"))]
    request = ask(answer, user_parts(), model="stateless", tools=tools, typed_tool_choice=choice, stop_sequences=["\n"])
    chat.CreateChatCompletion(request, metadata=ada)
    sent = worker.backend.calls[-1].request
    assert ["Hello", PARTS] == [from_value(message.content) for message in sent.messages]
    assert not any(message.HasField("text") or message.parts for message in sent.messages)
    assert ("function", ["\n"], {"type": "function", "function": {"name": "look"}}) == (
        sent.tools[0].type,
        from_value(sent.stop),
        from_value(sent.tool_choice),
    )
    assert not sent.stop_sequences
    assert not sent.HasField("typed_tool_choice")


def test_a_session_has_one_form(chat: ChatCompletionsStub, sessions: SessionsStub, ada: Metadata) -> None:
    """A session, its fork and its export have `content`; a list has `text` beside a content that is a string."""
    session_id = chat.CreateChatCompletion(ask(Message(role="user", text="Hi")), metadata=ada).session_id
    chat.CreateChatCompletion(ask(user_parts(), session_id=session_id), metadata=ada)
    forked = sessions.ForkSession(ForkSessionRequest(session_id=session_id), metadata=ada).id
    for name in (session_id, forked):
        page = sessions.ListSessionMessages(ListSessionMessagesRequest(session_id=name), metadata=ada)
        messages = [kept.message for kept in page.messages]
        assert ["Hi", "Hello", PARTS, "Hello"] == [from_value(message.content) for message in messages]
        assert ["Hi", "Hello", "", "Hello"] == [message.text for message in messages]
        assert not any(message.parts for message in messages)
        as_json = sessions.ListSessionMessagesJson(ListSessionMessagesRequest(session_id=name), metadata=ada)
        assert {"role": "user", "content": "Hi"} == json.loads(as_json.data)["messages"][0]["message"]
    exported = sessions.ExportSession(ExportSessionRequest(session_id=session_id), metadata=ada)
    lines = [json.loads(line) for line in b"".join(piece.data for piece in exported).splitlines()]
    assert ["Hi", "Hello", PARTS, "Hello"] == [line["content"] for line in lines]
    assert all("text" not in line and "parts" not in line for line in lines)


def test_a_key_replays_the_answer_to_both_forms(
    worker: Worker, chat: ChatCompletionsStub, sessions: SessionsStub, ada: Metadata
) -> None:
    """A call with the `Idempotency-Key` of an equal request in the other form, over any method, gets its answer."""
    metadata = (*ada, ("idempotency-key", "typed-and-plain"))
    first = chat.CreateChatCompletion(ask(Message(role="user", text="Hi"), stop_sequences=["x"]), metadata=metadata)
    plain = chat_request("Hi", stop=["x"])
    assert first == chat.CreateChatCompletion(plain, metadata=metadata)
    as_json = json.loads(chat.CreateChatCompletionJson(plain, metadata=metadata).data)
    assert (first.id, {"role": "assistant", "content": "Hello"}) == (as_json["id"], as_json["choices"][0]["message"])
    assert 1 == len(worker.backend.calls)


def test_a_stream_takes_typed_forms(worker: Worker, chat: ChatCompletionsStub, ada: Metadata) -> None:
    """A stream takes typed forms like the unary method, as do the methods of REST."""
    request = ask(Message(role="user", text="Hi"), model="stateless", stop_sequences=["x"])
    for method in (chat.StreamChatCompletion, chat.StreamChatCompletionEvents):
        assert [*method(request, metadata=ada)]
        sent = worker.backend.calls[-1].request
        assert ("Hi", ["x"]) == (from_value(sent.messages[0].content), from_value(sent.stop))


def test_two_forms_of_a_value_are_rejected(chat: ChatCompletionsStub, ada: Metadata) -> None:
    """A value in two forms is rejected with the names of both fields."""
    request = chat_request("Hi", stop="a")
    request.messages[0].text = "Ho"
    expected = "`messages[0].content` and `messages[0].text` are forms of one value; set one of them"
    assert expected in rejected(chat.CreateChatCompletion, request, ada)
    request.messages[0].ClearField("text")
    request.stop_sequences.append("a")
    expected = "`stop` and `stop_sequences` are forms of one value; set one of them"
    assert expected in rejected(chat.CreateChatCompletion, request, ada)


def test_parts_are_validated(chat: ChatCompletionsStub, ada: Metadata) -> None:
    """A part without content is rejected by its path: in languages that drop misspelt keys it is what remains."""
    request = ask(Message(role="user", parts=[ContentPart(text="a"), ContentPart()]))
    expected = "`messages[0].parts[1]` must have one of text, image, audio, file, refusal or json"
    assert expected in rejected(chat.CreateChatCompletion, request, ada)


def test_the_methods_of_rest_infer_no_type(chat: ChatCompletionsStub, ada: Metadata) -> None:
    """An empty `type` is set over gRPC only, as OpenAI's API requires it."""
    request = ask(Message(role="user", text="Hi"), response_format=ResponseFormat())
    request.response_format.json_schema.name = "s"
    chat.CreateChatCompletion(request, metadata=ada)
    assert "`response_format.type` must be text" in rejected(chat.CreateChatCompletionJson, request, ada)
