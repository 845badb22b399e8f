"""Typed forms of fields whose JSON is of several types, for gRPC callers (see message.proto).

Inside the service requests and answers have the fields of the JSON only. Typed forms of a request are replaced as it
arrives, those of an answer are set as it leaves.
"""

from collections.abc import Iterator
from typing import Any

from parley.core.messages.json_values import to_value
from parley.core.ports import RequestShape
from parley.rpc.message_validation import Fault
from parley.rpc.typed_parts import JsonParts, read_parts, with_members
from parley.v1.chat_completions_pb2 import (
    AudioOutput,
    ChatCompletion,
    CreateChatCompletionRequest,
    FunctionChoice,
    Prediction,
    ToolChoice,
)
from parley.v1.message_pb2 import CustomTool, Message
from parley.v1.sessions_pb2 import ListSessionMessagesResponse

_MAX_TEXT_LENGTH = 256 * 1024  # characters, of at most 4 bytes each


def read(request: CreateChatCompletionRequest) -> Iterator[Fault]:
    """Replaces the typed forms of a request by the fields whose forms they are; yields what is wrong with them."""
    for index, message in enumerate(request.messages):
        yield from _content(message, f"messages[{index}].")
    yield from _content(request.prediction, "prediction.") if request.HasField("prediction") else ()
    yield from _stop(request)
    yield from _tool_choice(request)
    yield from _function_call(request)
    yield from _voice(request.audio) if request.HasField("audio") else ()
    for index, tool in enumerate(request.tools):
        yield from _grammar(tool.custom, f"tools[{index}].custom.") if tool.HasField("custom") else ()


_WITH_TYPES = frozenset(
    CreateChatCompletionRequest.DESCRIPTOR.fields_by_name[name] for name in ("tools", "response_format", "prediction")
)


def infer_types(request: CreateChatCompletionRequest, shape: RequestShape) -> None:
    """Sets each `type` that is empty if the other fields allow one type only."""
    if shape.texts is not None and _WITH_TYPES.isdisjoint(shape.fields):
        return
    for tool in request.tools:
        tool.type = tool.type or _only(tool, "function", "custom")
    for message in request.messages:
        for call in message.tool_calls:
            if not call.type and _only(call, "function", "custom") == "custom":
                call.type = "custom"
    if request.HasField("response_format") and not request.response_format.type:
        request.response_format.type = _only(request.response_format, "json_schema")
    if request.HasField("prediction") and not request.prediction.type:
        request.prediction.type = _only(request.prediction, "content")


def set_text(answer: ChatCompletion | ListSessionMessagesResponse) -> None:
    """Sets the typed form of every content that is a string, except for very long ones.

    They would exceed the 4 MiB that gRPC clients accept by default.
    """
    messages = answer.choices if isinstance(answer, ChatCompletion) else answer.messages
    for item in messages:
        message = item.message
        text = message.content.string_value
        if (text or message.content.HasField("string_value")) and len(text) <= _MAX_TEXT_LENGTH:
            message.text = text


def _only(message: Any, *names: str) -> str:
    """Returns the name of the only one of these fields that is set; "" for none and for several."""
    found = _forms(message, *names)
    return found[0] if len(found) == 1 else ""


def _forms(message: Any, *names: str) -> list[str]:
    """Returns those of the fields that are set."""
    found = {field.name for field, _ in message.ListFields()}
    return [name for name in names if name in found]


def _conflicts(forms: list[str], path: str) -> Iterator[Fault]:
    """Yields a fault if several forms of a value are set; `path` is that of the message, with a dot at the end."""
    if len(forms) > 1:
        named = " and ".join(f"`{path}{name}`" for name in forms)
        yield f"{path}{forms[-1]}", f"{named} are forms of one value; set one of them"


def _content(message: Message | Prediction, path: str) -> Iterator[Fault]:
    forms = _forms(message, "content", "text", "parts")
    is_resent = message.content.HasField("string_value") and message.content.string_value == message.text
    faults = [] if is_resent and forms == ["content", "text"] else list(_conflicts(forms, path))
    if not faults and "text" in forms:
        message.content.string_value = message.text
    elif not faults and "parts" in forms:
        parts = read_parts(message.parts, f"{path}parts")
        _set_parts(message, parts)
        faults = parts.faults
    message.ClearField("text")
    message.ClearField("parts")
    yield from faults


def _set_parts(message: Message | Prediction, parts: JsonParts) -> None:
    """Sets the content, and also its text if a Value may not represent it exactly (see message.proto)."""
    message.content.CopyFrom(to_value(parts.data))
    if parts.has_unknown:
        content = f'{{"content":[{",".join(parts.texts)}]}}'
        message.extra_json = with_members(message.extra_json, content)


def _stop(request: CreateChatCompletionRequest) -> Iterator[Fault]:
    forms = _forms(request, "stop", "stop_sequences")
    yield from _conflicts(forms, "")
    if forms == ["stop_sequences"]:
        request.stop.CopyFrom(to_value(list(request.stop_sequences)))
    request.ClearField("stop_sequences")


def _tool_choice(request: CreateChatCompletionRequest) -> Iterator[Fault]:
    forms = _forms(request, "tool_choice", "typed_tool_choice")
    yield from _conflicts(forms, "")
    if forms == ["typed_tool_choice"]:
        data = _tool_choice_data(request.typed_tool_choice)
        if data:
            request.tool_choice.CopyFrom(to_value(data))
        else:
            yield _without_choice("typed_tool_choice", "mode, function_name, custom_tool_name or allowed_tools")
    request.ClearField("typed_tool_choice")


def _tool_choice_data(choice: ToolChoice) -> Any:
    """Returns a choice as OpenAI's JSON; a false value for one that names nothing."""
    if choice.HasField("allowed_tools"):
        tools = [_named("function", name) for name in choice.allowed_tools.function_names]
        tools += [_named("custom", name) for name in choice.allowed_tools.custom_tool_names]
        allowed = {"mode": choice.allowed_tools.mode or "auto", "tools": tools}
        return tools and {"type": "allowed_tools", "allowed_tools": allowed}
    if choice.function_name:
        return _named("function", choice.function_name)
    return _named("custom", choice.custom_tool_name) if choice.custom_tool_name else choice.mode


def _named(kind: str, name: str) -> dict[str, Any]:
    return {"type": kind, kind: {"name": name}}


def _function_call(request: CreateChatCompletionRequest) -> Iterator[Fault]:
    forms = _forms(request, "function_call", "typed_function_call")
    yield from _conflicts(forms, "")
    if forms == ["typed_function_call"]:
        choice: FunctionChoice = request.typed_function_call
        data = {"name": choice.function_name} if choice.function_name else choice.mode
        if data:
            request.function_call.CopyFrom(to_value(data))
        else:
            yield _without_choice("typed_function_call", "mode or function_name")
    request.ClearField("typed_function_call")


def _without_choice(name: str, fields: str) -> Fault:
    return name, f"`{name}` must have one of {fields}, and it must not be empty", "missing"


def _voice(audio: AudioOutput) -> Iterator[Fault]:
    forms = _forms(audio, "voice", "voice_name", "voice_id")
    yield from _conflicts(forms, "audio.")
    if forms == ["voice_name"]:
        audio.voice.string_value = audio.voice_name
    elif forms == ["voice_id"]:
        audio.voice.CopyFrom(to_value({"id": audio.voice_id}))
    audio.ClearField("voice_name")
    audio.ClearField("voice_id")


def _grammar(tool: CustomTool, path: str) -> Iterator[Fault]:
    forms = _forms(tool, "format", "grammar")
    yield from _conflicts(forms, path)
    if forms == ["grammar"]:
        for name, value in (("syntax", tool.grammar.syntax), ("definition", tool.grammar.definition)):
            if not value:
                yield f"{path}grammar.{name}", f"`{path}grammar.{name}` is required", "missing"
        grammar = {"syntax": tool.grammar.syntax, "definition": tool.grammar.definition}
        tool.format.update({"type": "grammar", "grammar": grammar})
    tool.ClearField("grammar")
