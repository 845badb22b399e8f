"""How the parameters of a request to a target differ from those of the caller."""

from collections.abc import Mapping
from typing import Any, Self

from parley.config import Target

SAME_LIMIT = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
"""The two names of one limit. A request that sets one gets no default for the other."""

_ROLE = "developer"
"""In `rename` the name of a role; it is no parameter."""


class TargetParameters:
    """The `drop`, `rename`, `default` and `set` of a target.

    Args:
        target: The configuration of the target.

    Attributes:
        dropped: The parameters that are left out.
        default: The parameters that are added.
        set: The parameters that are replaced.
    """

    __slots__ = ("_names", "_renames_role", "default", "dropped", "set")

    def __init__(self, target: Target) -> None:
        self.dropped = frozenset(target.drop)
        self.default: Mapping[str, Any] = target.default
        self.set: Mapping[str, Any] = target.set
        self._names = {old: new for old, new in target.rename.items() if old != _ROLE}
        self._renames_role = _ROLE in target.rename

    @classmethod
    def of(cls, target: Target) -> Self | None:
        """Returns the parameters of a target; None if it changes none."""
        return cls(target) if target.drop or target.rename or target.default or target.set else None

    def apply(self, body: dict[str, Any]) -> None:
        """Changes the JSON body of a request in place."""
        for name in self.dropped:
            body.pop(name, None)
        self._rename(body)
        for name, value in self.default.items():
            if name not in body and SAME_LIMIT.get(name) not in body:
                body[name] = value
        body |= self.set

    def caller_name(self, name: str) -> str:
        """Returns the name that callers use for a parameter."""
        return next((old for old, new in self._names.items() if new == name), name)

    def _rename(self, body: dict[str, Any]) -> None:
        renamed = {new: body.pop(old) for old, new in self._names.items() if old in body}
        for name, value in renamed.items():
            body.setdefault(name, value)
        if self._renames_role:
            for message in body["messages"]:
                if message.get("role") == _ROLE:
                    message["role"] = "system"
