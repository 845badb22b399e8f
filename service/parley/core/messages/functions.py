"""Translation of the deprecated `functions` and `function_call` to tools, and back.

Backends receive tools only, in messages of earlier turns too. The answer to a request with functions is translated
back, and a session stores it as the caller receives it. (OpenAI API reference, chat completions: `functions` is
deprecated in favor of `tools`, `function_call` of `tool_choice`.)
"""

from collections.abc import Iterable, Iterator

from google.protobuf.struct_pb2 import Value

from parley.core.errors import UnsupportedParameter
from parley.core.messages import extra_fields
from parley.core.messages.proto_json import from_struct
from parley.v1.chat_completions_pb2 import ChatCompletion, ChatCompletionChunk, CreateChatCompletionRequest
from parley.v1.message_pb2 import FunctionCall, FunctionDefinition, Message, Tool, ToolCall

_OLD_NAMES = {"tools": "functions", "tool_choice": "function_call"}
_OLD_CHOICES = frozenset({"tool_choice", "function_call"})


def uses_functions(request: CreateChatCompletionRequest) -> bool:
    """Reports whether a request uses the deprecated form, and so expects it in the answer."""
    return bool(request.functions) or request.HasField("function_call")


def has_functions(request: CreateChatCompletionRequest) -> bool:
    """Reports whether a request has the deprecated form, in earlier turns too, so that `to_tools` changes it."""
    return uses_functions(request) or any(
        message.role == "function" or message.HasField("function_call") for message in request.messages
    )


def conflicts(request: CreateChatCompletionRequest) -> Iterator[int]:
    """Yields the index of each function with the name of an earlier tool or function, but another definition.

    Backends receive one list of tools, with unique names.
    """
    known = _by_name(request.tools)
    for index, function in enumerate(request.functions):
        other = known.setdefault(function.name, function)
        if other is not function and _definition(other) != _definition(function):
            yield index


def to_tools(request: CreateChatCompletionRequest) -> None:
    """Replaces functions with tools: in the offer, the choice and the conversation."""
    if uses_functions(request):
        known = _by_name(request.tools)
        added = [function for function in request.functions if known.setdefault(function.name, function) is function]
        request.tools.extend(Tool(type="function", function=function) for function in added)
        if request.HasField("function_call"):
            request.tool_choice.CopyFrom(_choice(request.function_call))
            _drop_exact_choices(request)
        if request.functions and not request.HasField("parallel_tool_calls"):
            request.parallel_tool_calls = False  # a message has only one `function_call`
        request.ClearField("functions")
        request.ClearField("function_call")
    _messages_to_tools(request.messages)


def to_functions(completion: ChatCompletion) -> None:
    """Replaces tool calls with function calls in a completion."""
    for choice in completion.choices:
        if choice.message.tool_calls:
            choice.message.function_call.CopyFrom(choice.message.tool_calls[0].function)
            choice.message.ClearField("tool_calls")
        if choice.finish_reason == "tool_calls":
            choice.finish_reason = "function_call"


def to_function_deltas(chunk: ChatCompletionChunk) -> None:
    """Replaces tool calls with function calls in a chunk."""
    for choice in chunk.choices:
        first = [call.function for call in choice.delta.tool_calls if call.index == 0]
        choice.delta.ClearField("tool_calls")
        for function in first:
            choice.delta.function_call.CopyFrom(function)
        if choice.finish_reason == "tool_calls":
            choice.finish_reason = "function_call"


def use_function_names(error: UnsupportedParameter) -> None:
    """Changes an error to name the parameter that the caller sent."""
    old = _OLD_NAMES.get(error.param or "")
    if old is not None:
        error.message = error.message.replace(f"`{error.param}`", f"`{old}`")
        error.param = old


def _by_name(tools: Iterable[Tool]) -> dict[str, FunctionDefinition]:
    return {tool.function.name: tool.function for tool in tools if tool.type == "function"}


def _definition(function: FunctionDefinition) -> tuple[object, ...]:
    """Returns a function's definition, with its JSON as values."""
    text = function.parameters_json
    parameters = _read(text) if function.HasField("parameters_json") else from_struct(function.parameters)
    return (function.description, parameters, function.strict, _read(function.extra_json or "{}"))


def _read(text: str) -> object:
    data = extra_fields.read_object(text)
    return text if data is None else data


def _choice(choice: Value) -> Value:
    if not choice.HasField("struct_value"):
        return choice
    made = Value()
    name = choice.struct_value.fields["name"].string_value
    made.struct_value.update({"type": "function", "function": {"name": name}})
    return made


def _drop_exact_choices(request: CreateChatCompletionRequest) -> None:
    """Removes the exact text of the old choices from the unknown fields, as another choice replaces them."""
    text = request.extra_body_json
    fields = extra_fields.loads(text or "{}")
    if not _OLD_CHOICES.isdisjoint(fields):
        kept = {name: value for name, value in fields.items() if name not in _OLD_CHOICES}
        request.extra_body_json = extra_fields.dumps(kept)


def _messages_to_tools(messages: Iterable[Message]) -> None:
    """Replaces function calls with tool calls; each gets an id, and so does the `function` message after it."""
    answered = ""
    for index, message in enumerate(messages):
        if message.HasField("function_call"):
            answered = f"call_{index}"
            call = FunctionCall()
            call.CopyFrom(message.function_call)
            message.tool_calls.append(ToolCall(id=answered, type="function", function=call))
            message.ClearField("function_call")
        elif message.role == "function":
            message.role = "tool"
            message.tool_call_id = answered
            message.ClearField("name")
