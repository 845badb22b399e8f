"""How the parameters of a request to a target differ from those of the caller."""

from collections.abc import Mapping
from typing import Any, Self

from parley.config import ParameterChanges

SAME_LIMIT = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
"""The two names of one limit. A request that sets one gets no default for the other."""

_OF_MESSAGES = "messages."


class TargetParameters:
    """The `drop`, `rename`, `roles`, `default` and `set` of a target, those of its backend included.

    Args:
        changes: The configuration of the target, merged with that of its backend.

    Attributes:
        dropped: The parameters that are left out.
        default: The parameters that are added.
        set: The parameters that are replaced.
    """

    __slots__ = ("_dropped_of_messages", "_names", "_roles", "default", "dropped", "set")

    def __init__(self, changes: ParameterChanges) -> None:
        self.dropped = frozenset(name for name in changes.drop if not name.startswith(_OF_MESSAGES))
        self.default: Mapping[str, Any] = changes.default
        self.set: Mapping[str, Any] = changes.set
        self._dropped_of_messages = tuple(
            name.removeprefix(_OF_MESSAGES) for name in changes.drop if name.startswith(_OF_MESSAGES)
        )
        self._names = changes.parameter_names
        self._roles = changes.role_names

    @classmethod
    def of(cls, changes: ParameterChanges) -> Self | None:
        """Returns the parameters of a target; None if it changes none."""
        return cls(changes) if changes.changed else None

    def apply(self, body: dict[str, Any]) -> None:
        """Changes the JSON body of a request in place."""
        for name in self.dropped:
            body.pop(name, None)
        renamed = {new: body.pop(old) for old, new in self._names.items() if old in body}
        for name, value in renamed.items():
            body.setdefault(name, value)
        if self._roles or self._dropped_of_messages:
            for message in body["messages"]:
                self._change_message(message)
        for name, value in self.default.items():
            if name not in body and SAME_LIMIT.get(name) not in body:
                body[name] = value
        body |= self.set

    def caller_name(self, name: str) -> str:
        """Returns the name that callers use for a parameter."""
        return next((old for old, new in self._names.items() if new == name), name)

    def _change_message(self, message: dict[str, Any]) -> None:
        role = message["role"]
        message["role"] = self._roles.get(role, role)
        for name in self._dropped_of_messages:
            message.pop(name, None)
