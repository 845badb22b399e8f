"""Functions as tools: their schemas from type hints, and calls to them."""

import enum
import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from parley_client.completion import Completion
from parley_client.requests import MessageInput, MessagesInput, conversation
from parley_client.v1.message_pb2 import ToolCall

DEFAULT_ROUNDS = 10
_SCALARS = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null", dict: "object"}
_UNIONS = {typing.Union, types.UnionType}
_NAMED = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
_ARGUMENT = re.compile(r"^\s{2,}(\w+)(?: \([^)]*\))?: (.+)$", re.MULTILINE)


class ToolError(Exception):
    """Raised by a tool: its text is returned to the model, which may try something else."""


class TooManyRoundsError(Exception):
    """The model still calls tools after the most rounds allowed."""


def schema(function: Callable[..., Any]) -> dict[str, Any]:
    """Returns the tool of a function: name, description and parameters.

    The docstring's first line describes the function, its `Args:` (Google style) the parameters.

    Raises:
        TypeError: A parameter has no type hint, or one that has no JSON Schema, or cannot be passed by name.
    """
    hints = typing.get_type_hints(function)
    text = inspect.getdoc(function) or ""
    described = dict(_ARGUMENT.findall(text.partition("Args:")[2].partition("Returns:")[0]))
    properties, required = {}, []
    for name, parameter in inspect.signature(function).parameters.items():
        if name not in hints:
            raise TypeError(f"the parameter `{name}` of {function.__name__} needs a type hint")
        if parameter.kind not in _NAMED:
            raise TypeError(f"the parameter `{name}` of {function.__name__} cannot be passed by name, as a model does")
        properties[name] = _of(hints[name], f"{function.__name__}({name})")
        if name in described:
            properties[name]["description"] = described[name]
        if parameter.default is inspect.Parameter.empty:
            required.append(name)
    parameters = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    made: dict[str, Any] = {"name": function.__name__, "parameters": parameters}
    if text:
        made["description"] = text.split("\n\n")[0].replace("\n", " ")
    return {"type": "function", "function": made}


def _of(hint: Any, place: str) -> dict[str, Any]:
    """Returns the JSON Schema of a type hint."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return {}
    if (kind := dict if origin in {dict, Mapping} else hint) in _SCALARS:
        return {"type": _SCALARS[kind]}
    if origin in {list, Sequence} | _UNIONS:
        inner = [_of(one, place) for one in arguments]
        return {"type": "array", "items": inner[0]} if origin in {list, Sequence} else {"anyOf": inner}
    if origin is typing.Literal or _is_enum(hint):
        return {"enum": [one.value for one in hint] if _is_enum(hint) else list(arguments)}
    if typing.is_typeddict(hint):
        fields = {name: _of(one, place) for name, one in typing.get_type_hints(hint).items()}
        return {"type": "object", "properties": fields, "required": sorted(hint.__required_keys__)}
    raise TypeError(f"the type of {place} has no JSON Schema: {hint}")


def _is_enum(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, enum.Enum)


def check_synchronous(functions: Sequence[Callable[..., Any]]) -> None:
    """Raises TypeError for a coroutine function, which the synchronous client would not await."""
    for function in functions:
        if inspect.iscoroutinefunction(function):
            raise TypeError(f"{function.__name__} is a coroutine function; only AsyncClient calls those")


class Loop:
    """The conversation of a tool loop.

    Args:
        messages: The conversation so far.
        functions: The functions that the model may call. Each takes keyword arguments and returns text or JSON data.
        session_id: The session to continue.
        max_rounds: The most rounds of tool calls.
    """

    def __init__(
        self,
        messages: MessagesInput,
        functions: Sequence[Callable[..., Any]],
        session_id: str | None,
        max_rounds: int,
    ) -> None:
        self._functions = {function.__name__: function for function in functions}
        self._rounds = max_rounds
        self.schemas = [schema(function) for function in self._functions.values()]
        if len(self._functions) < len(functions):
            raise TypeError("two tools have the same name")
        self.messages: list[MessageInput] = conversation(messages)
        self.session_id = session_id

    def call(self, call: ToolCall) -> Any:
        """Calls the function of a tool call; returns what it returns, or the error for the model.

        Exceptions other than ToolError are the program's own, and propagate.
        """
        function = self._functions.get(call.function.name)
        if function is None:
            return failure(ToolError(f"there is no tool {call.function.name}"))
        try:
            return function(**_arguments(function, call))
        except ToolError as error:
            return failure(error)

    async def call_async(self, call: ToolCall) -> Any:
        """Does the same for a function that may be a coroutine function."""
        try:
            result = self.call(call)
            return await result if inspect.isawaitable(result) else result
        except ToolError as error:
            return failure(error)

    def start_round(self, answer: Completion) -> Sequence[ToolCall]:
        """Starts a round: returns the model's calls, none if it has answered.

        Raises:
            TooManyRoundsError: It would be one round too many.
        """
        if answer.tool_calls and self._rounds <= 0:
            raise TooManyRoundsError(f"the model still calls {answer.tool_calls[0].function.name}; raise max_rounds")
        self._rounds -= 1
        return answer.tool_calls

    def add(self, answer: Completion, results: Sequence[Any]) -> None:
        """Adds a round: the model's calls and their results. In a session only the results are new."""
        added = [_result(call, result) for call, result in zip(answer.tool_calls, results, strict=True)]
        self.session_id = answer.session_id
        self.messages = added if answer.session_id else [*self.messages, answer.message, *added]


def failure(error: ToolError) -> dict[str, str]:
    """Returns what the model is sent for an error."""
    return {"error": str(error)}


def _result(call: ToolCall, result: Any) -> MessageInput:
    """Returns the message with the result of a tool call."""
    content = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str)
    return {"role": "tool", "tool_call_id": call.id, "content": content}


def _arguments(function: Callable[..., Any], call: ToolCall) -> dict[str, Any]:
    """Reads the arguments, which a model may have written wrong. Raises ToolError."""
    try:
        arguments = json.loads(call.function.arguments or "{}")
        inspect.signature(function).bind(**arguments)
    except (ValueError, TypeError) as error:
        raise ToolError(f"the arguments are invalid: {error}") from error
    except RecursionError as error:
        raise ToolError("the arguments are invalid: they are nested too deeply") from error
    hints = typing.get_type_hints(function)
    return {name: _converted(hints[name], value) for name, value in arguments.items()}


def _converted(hint: Any, value: Any) -> Any:
    """Converts the values of enums, the only type that JSON cannot write. Raises ToolError."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if _is_enum(hint):
        return _member(hint, value)
    if origin in {list, Sequence} and isinstance(value, list):
        return [_converted(arguments[0], item) for item in value]
    if origin in _UNIONS and value is not None:
        return _of_union(arguments, value)
    if typing.is_typeddict(hint) and isinstance(value, dict):
        hints = typing.get_type_hints(hint)
        return {name: _converted(hints.get(name, Any), item) for name, item in value.items()}
    return value


def _member(kind: type[enum.Enum], value: Any) -> enum.Enum:
    try:
        return kind(value)
    except ValueError as error:
        raise ToolError(str(error)) from error


def _of_union(hints: Sequence[Any], value: Any) -> Any:
    """Converts a value to the first type that changes it; enums come first, as other types accept any value."""
    *others, last = sorted((hint for hint in hints if hint is not type(None)), key=_is_enum, reverse=True)
    for hint in others:
        with suppress(ToolError):
            converted = _converted(hint, value)
            if converted is not value:
                return converted
    return _converted(last, value)
