"""Adjusts a request body to a server that differs from OpenAI's API in names: of parameters and of roles."""

from collections.abc import Iterable, Mapping
from typing import Any

from parley.backends.capabilities import Capabilities

_OF_MESSAGES = "messages."
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


class Adjustments:
    """The differences of one server.

    Args:
        rename: Parameters with the server's name of each.
        drop: Parameters that are left out; `messages.NAME` is a field of every message.
        unsupported: Parameters that the server has not.
        roles: Roles of messages with the server's name of each.
    """

    def __init__(
        self,
        rename: Mapping[str, str] | None = None,
        drop: Iterable[str] = (),
        unsupported: Iterable[str] = (),
        roles: Mapping[str, str] | None = None,
    ) -> None:
        names = tuple(drop)
        self._rename = tuple((rename or {}).items())
        self._dropped = tuple(name for name in names if not name.startswith(_OF_MESSAGES))
        self._dropped_of_messages = tuple(
            name.removeprefix(_OF_MESSAGES) for name in names if name.startswith(_OF_MESSAGES)
        )
        self._unsupported = frozenset(unsupported)
        self._roles = dict(roles or {})
        self.capabilities = Capabilities({name: _NO_EFFECT.get(name, ()) for name in self._unsupported})

    def __bool__(self) -> bool:
        """Returns whether the server differs at all."""
        return bool(self._rename or self._dropped or self._dropped_of_messages or self._unsupported or self._roles)

    def prepare(self, body: dict[str, Any]) -> None:
        """Removes what the server has not and the request does not need, before the capabilities are checked."""
        if "tool_choice" in self._unsupported and body.get("tool_choice") == "none":
            for name in _TOOL_FIELDS:
                body.pop(name, None)

    def apply(self, body: dict[str, Any]) -> None:
        """Changes the body in place. Of two parameters that become one, that with the server's name stays."""
        for name in (*self._dropped, *self._unsupported):
            body.pop(name, None)
        for name, own in self._rename:
            if name in body:
                value = body.pop(name)
                body.setdefault(own, value)
        if self._roles or self._dropped_of_messages:
            for message in body["messages"]:
                role = message.get("role")
                message["role"] = self._roles.get(role, role)
                for name in self._dropped_of_messages:
                    message.pop(name, None)


NONE = Adjustments()
"""Changes nothing."""
