"""Parameters that a server silently ignores; they are rejected instead."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from parley.core.errors import UnsupportedParameter
from parley.core.messages.proto_json import from_value
from parley.v1.chat_completions_pb2 import CreateChatCompletionRequest

_TOOL_FIELDS = ("tools", "tool_choice", "parallel_tool_calls")
_NO_EFFECT: Mapping[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "parallel_tool_calls": (True,),
    "presence_penalty": (0,),
    "tool_choice": ("auto",),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
}
"""Values of parameters that are the same as none."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The supported values of a backend's parameters."""

    parameters: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Unsupported parameters, with the JSON values that have no effect and are therefore accepted."""
    parts: Container[str] = frozenset()
    """Unsupported types of content parts."""
    tools: Container[str] | None = None
    """Supported types of tools; None: all."""
    formats: Container[str] | None = None
    """Supported types of `response_format`; None: all."""
    choices: Container[str] | None = None
    """Supported string values of `tool_choice`; None: all."""
    ranges: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Minimum and maximum of numeric parameters, inclusive."""
    refuses_names: bool = False
    """Whether the server refuses unsupported parameters with any value: those without an effect are removed."""

    def check(self, body: dict[str, Any], request: CreateChatCompletionRequest) -> None:
        """Rejects what this backend does not support.

        Unsupported tools are removed from the body if `tool_choice` is `none`, and unsupported parameters without an
        effect if the server refuses their names.

        Args:
            body: The JSON body; may be modified.
            request: The request of the caller.

        Raises:
            UnsupportedParameter: If the request depends on something unsupported.
        """
        if body.get("tool_choice") == "none":
            self._remove_tools(body)
        if self is not UNLIMITED:
            self._check(body, request)
        if self.refuses_names:
            for name in self.parameters:
                body.pop(name, None)

    def _check(self, body: Mapping[str, Any], request: CreateChatCompletionRequest) -> None:
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

    def _remove_tools(self, body: dict[str, Any]) -> None:
        allowed = [tool for tool in body.get("tools", ()) if self.tools is None or tool.get("type") in self.tools]
        if not allowed or not self.parameters.keys().isdisjoint(("tools", "tool_choice")):
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
            for position, part in enumerate(message.content.list_value.values):
                kind = from_value(part.struct_value.fields["type"]) if "type" in part.struct_value.fields else None
                if kind in self.parts:
                    param = f"messages[{index}].content[{position}].type"
                    raise unsupported(f"A content part of the type `{kind}`", request.model, param)


UNLIMITED = Capabilities()
"""Every value of every parameter is supported."""


def without(names: Iterable[str]) -> Capabilities:
    """Returns the capabilities of a server that refuses some parameters; UNLIMITED for no names."""
    unsupported = {name: _NO_EFFECT.get(name, ()) for name in names}
    return Capabilities(unsupported, refuses_names=True) if unsupported else UNLIMITED


def unsupported(what: str, model: str, param: str) -> UnsupportedParameter:
    """Creates the error for an unsupported parameter.

    Args:
        what: Subject of the message, for example "`logprobs`".
        model: The caller's name for the model.
        param: Path of the field.
    """
    return UnsupportedParameter(f'{what} is not supported by the model "{model}"', param=param)
