"""What a backend cannot do, though its server would take the parameter and say nothing."""

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any

from parley.core.errors import UnsupportedParameter
from parley.core.messages.proto_json import from_value
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest

_TOOL_FIELDS = ("tools", "tool_choice", "parallel_tool_calls")


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Parameters that a backend ignores.

    `parameters` maps each to the JSON values that ask for nothing, and so may stand. `parts` are the types of content
    parts that it cannot read. `tools` are the types of tools that it has, `formats` those of `response_format`,
    `choices` the words that `tool_choice` may be; None is any. `ranges` has the least and the greatest value of
    numbers.
    """

    parameters: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    parts: Container[str] = frozenset()
    tools: Container[str] | None = None
    formats: Container[str] | None = None
    choices: Container[str] | None = None
    ranges: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def check(self, body: dict[str, Any], request: CreateChatCompletionRequest) -> None:
        """Raises UnsupportedParameter for what this backend would ignore.

        Tools that must not be called (`tool_choice` is `none`) are left out of the body, where it cannot have them.
        """
        if body.get("tool_choice") == "none":
            self._leave_out_tools(body)
        for name in self.parameters.keys() & body.keys():
            if body[name] not in self.parameters[name]:
                raise unsupported(f"`{name}`", request.model, name)
        for name in self.ranges.keys() & body.keys():
            least, greatest = self.ranges[name]
            if not least <= body[name] <= greatest:
                message = f'`{name}` must be from {least} to {greatest} for the model "{request.model}"'
                raise UnsupportedParameter(message, param=name)
        if self.tools is not None:
            self._check_tools(body, request.model)
        choice = body.get("tool_choice")
        if self.choices is not None and isinstance(choice, str) and choice not in self.choices:
            raise unsupported(f"`tool_choice` `{choice}`", request.model, "tool_choice")
        if (
            self.formats is not None
            and "response_format" in body
            and body["response_format"]["type"] not in self.formats
        ):
            kind = body["response_format"]["type"]
            raise unsupported(f"`response_format` of the type `{kind}`", request.model, "response_format.type")
        if self.parts:
            self._check_parts(request)

    def _leave_out_tools(self, body: dict[str, Any]) -> None:
        allowed = [tool for tool in body.get("tools", ()) if self.tools is None or tool.get("type") in self.tools]
        if "tools" in self.parameters or not allowed:
            for name in _TOOL_FIELDS:
                body.pop(name, None)
        else:
            body["tools"] = allowed

    def _check_tools(self, body: Mapping[str, Any], model: str) -> None:
        for index, tool in enumerate(body.get("tools", ())):
            if tool.get("type") not in (self.tools or ()):
                raise unsupported(f"A tool of the type `{tool.get('type')}`", model, f"tools[{index}].type")

    def _check_parts(self, request: CreateChatCompletionRequest) -> None:
        for index, message in enumerate(request.messages):
            for place, part in enumerate(message.content.list_value.values):
                kind = from_value(part.struct_value.fields["type"]) if "type" in part.struct_value.fields else None
                if kind in self.parts:
                    param = f"messages[{index}].content[{place}].type"
                    raise unsupported(f"A content part of the type `{kind}`", request.model, param)


def unsupported(what: str, model: str, param: str) -> UnsupportedParameter:
    """Returns the error for what a backend cannot do; `model` is the caller's name for it, `param` the field's path."""
    return UnsupportedParameter(f'{what} is not supported by the model "{model}"', param=param)
