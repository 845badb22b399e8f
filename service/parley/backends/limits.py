"""What a backend cannot do, though its server would take the parameter and say nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from parley.core.errors import UnsupportedParameter


@dataclass(frozen=True, slots=True)
class Limits:
    """Parameters that a backend ignores.

    `parameters` maps each to the JSON values that ask for nothing, and so may stand. `parts` are the types of content
    parts that it cannot read, `tools` the types of tools.
    """

    parameters: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    parts: frozenset[str] = frozenset()
    tools: frozenset[str] = frozenset()

    def check(self, body: Mapping[str, Any], model: str) -> None:
        """Raises UnsupportedParameter for what this backend would ignore; `model` is the caller's name for it."""
        for name in self.parameters.keys() & body.keys():
            if body[name] not in self.parameters[name]:
                raise unsupported(f"`{name}`", model, name)
        for index, tool in enumerate(body.get("tools", ()) if self.tools else ()):
            if tool.get("type") in self.tools:
                raise unsupported(f"A tool of the type `{tool['type']}`", model, f"tools[{index}].type")
        if self.parts:
            self._check_parts(body, model)

    def _check_parts(self, body: Mapping[str, Any], model: str) -> None:
        for index, message in enumerate(body.get("messages", ())):
            content = message.get("content")
            for place, part in enumerate(content if isinstance(content, list) else ()):
                kind = part.get("type") if isinstance(part, dict) else None
                if kind in self.parts:
                    param = f"messages[{index}].content[{place}].type"
                    raise unsupported(f"A content part of the type `{kind}`", model, param)


def unsupported(what: str, model: str, param: str) -> UnsupportedParameter:
    """Returns the error for what a backend cannot do; `model` is the caller's name for it, `param` the field's path."""
    return UnsupportedParameter(f'{what} is not supported by the model "{model}"', param=param)
