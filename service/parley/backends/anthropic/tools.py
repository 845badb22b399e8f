"""Converts tools and `tool_choice` to Anthropic's Messages API.

Functions are translated. Anthropic's own tools, whose types end in a date, are sent unchanged. Other types are
rejected. Source: Messages API reference; tool use, server tools, prompt caching.
"""

import re
from typing import Any

from parley.backends.capabilities import unsupported
from parley.backends.json_fidelity import exact_schema, exact_texts, members
from parley.core.errors import InvalidRequest
from parley.core.messages.proto_json import from_struct, from_value
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest
from parley.v1.message_pb2 import FunctionDefinition, Tool

_NO_PARAMETERS = {"type": "object", "properties": {}}
_EMPTY_OBJECT = re.compile(r"\s*\{\s*\}\s*")
_CHOICES = {"auto": "auto", "required": "any", "any": "any", "none": "none"}
_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
_NATIVE = re.compile(r"[a-z0-9_]+_\d{8}|mcp_toolset")
_NATIVE_CHOICES = frozenset({"auto", "any", "tool", "none"})
_FIELDS = frozenset(
    {"cache_control", "defer_loading", "allowed_callers", "input_examples", "eager_input_streaming", "parameters"}
)


def tools(request: CreateChatCompletionRequest) -> dict[str, Any]:
    """Returns the fields `tools` and `tool_choice`; neither without tools.

    With `tool_choice: none`, unsupported tools are dropped.

    Raises:
        InvalidRequest: If a tool or `tool_choice` is invalid.
        UnsupportedParameter: If the API has no equivalent.
    """
    choice = _choice(request) if request.tools else None
    may_call = choice is None or choice["type"] != "none"
    offered = [
        _tool(tool, f"tools[{index}]", request.model)
        for index, tool in enumerate(request.tools)
        if may_call or tool.type == "function" or _NATIVE.fullmatch(tool.type)
    ]
    if not offered:
        return {}
    if request.HasField("parallel_tool_calls") and not request.parallel_tool_calls and may_call:
        choice = (choice or {"type": "auto"}) | {"disable_parallel_tool_use": True}
    return {"tools": offered, "tool_choice": choice} if choice else {"tools": offered}


def _tool(tool: Tool, path: str, model: str) -> dict[str, Any]:
    extra = members(tool.extra_json, f"{path}.extra_json") if tool.extra_json else {}
    if _NATIVE.fullmatch(tool.type):
        return {"type": tool.type} | extra
    if tool.type != "function":
        raise unsupported(f"A tool of the type `{tool.type}`", model, f"{path}.type")
    function = tool.function
    if not _NAME.fullmatch(function.name):
        raise unsupported(f"A tool with the name `{function.name}`", model, f"{path}.function.name")
    translated: dict[str, Any] = {"name": function.name}
    if function.HasField("description"):
        translated["description"] = function.description
    translated["input_schema"] = _parameters(function)
    if function.HasField("strict"):
        translated["strict"] = function.strict
    translated |= _known(extra, path, model)
    if function.extra_json:
        at = f"{path}.function"
        translated |= _known(members(function.extra_json, f"{at}.extra_json"), at, model)
    return translated


def _known(extra: dict[str, Any], path: str, model: str) -> dict[str, Any]:
    """Returns the unknown fields that the API supports. Raises UnsupportedParameter for others."""
    for key in sorted(extra.keys() - _FIELDS):
        raise unsupported(f"`{path}.{key}`", model, f"{path}.{key}")
    return {key: value for key, value in extra.items() if key != "parameters"}


def _parameters(function: FunctionDefinition) -> Any:
    """Returns the schema of a function's parameters with its key order; by default that of an empty object."""
    if function.HasField("parameters_json"):
        schema = exact_schema(function.parameters_json, "parameters_json")
        return _NO_PARAMETERS if _EMPTY_OBJECT.fullmatch(function.parameters_json) else schema
    return from_struct(function.parameters) or _NO_PARAMETERS


def _choice(request: CreateChatCompletionRequest) -> dict[str, Any] | None:
    choice = from_value(request.tool_choice)
    if choice is None:
        return None
    if not isinstance(choice, dict):
        if choice not in _CHOICES:
            raise unsupported(f"`tool_choice` `{choice}`", request.model, "tool_choice")
        return {"type": _CHOICES[choice]}
    if choice.get("type") in _NATIVE_CHOICES:
        text = exact_texts(request).get("tool_choice", "{}")
        return choice | members(text, "tool_choice") | {"type": choice["type"]}
    if choice.get("type", "function") != "function":
        raise unsupported(f"`tool_choice` of the type `{choice['type']}`", request.model, "tool_choice")
    function = choice.get("function")
    if not (isinstance(function, dict) and isinstance(function.get("name"), str)):
        raise InvalidRequest("`tool_choice.function.name` is required and must be a string", param="tool_choice")
    return {"type": "tool", "name": function["name"]}
