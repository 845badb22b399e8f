"""Checks the vendor parameters of a request against the list of a backend."""

from collections.abc import Mapping, Sequence
from typing import Any

from parley.backends.extra_body.closed import CLOSED
from parley.config.vendor import Parameters
from parley.core.errors import UnsupportedParameter
from parley.core.ports import UpstreamCall

Setting = str | Sequence[str]
"""`preset`, `all`, `off`, or names that are allowed beside the preset."""
_FIELDS = frozenset({"extra_body", "extra_body_json"})
_NO_OPS: Mapping[str, Any] = {"usage": {"include": True}, "include_reasoning": True}
"""Values that OpenRouter's clients (LibreChat, Roo Code, opencode) add to every call, for what answers have anyway."""


class ExtraBodyPolicy:
    """The vendor parameters that one backend passes on.

    Args:
        preset: The parameters that are allowed by default.
        setting: `extra_body` in the configuration of the backend.
        member: The member of the body that contains the parameters; None if they are members of the body itself.
    """

    __slots__ = ("_allowed", "member")

    def __init__(self, preset: Parameters, setting: Setting = "preset", member: str | None = None) -> None:
        self.member = member
        self._allowed: Parameters | None = dict(preset)
        if setting == "all":
            self._allowed = None
        elif setting == "off":
            self._allowed = {}
        elif not isinstance(setting, str):
            self._allowed = dict(preset) | dict.fromkeys(setting)

    def check(self, call: UpstreamCall, parameters: Mapping[str, Any]) -> Sequence[str]:
        """Checks the vendor parameters of a call. Those of the model's `defaults` are the operator's own.

        Returns:
            The names of parameters that are left out: those that the target drops, and those that are not allowed, but
            null or without an effect.

        Raises:
            UnsupportedParameter: If a parameter is not allowed.
        """
        allowed = self._allowed
        if allowed is None or not _FIELDS.isdisjoint(call.defaults):
            return ()
        dropped = call.parameters.dropped if call.parameters is not None else ()
        left_out = [
            name
            for name, value in parameters.items()
            if name in dropped or (name not in allowed and _has_no_effect(name, value))
        ]
        for name, value in parameters.items():
            if name in left_out:
                continue
            if name not in allowed:
                raise _refused(name, name, call)
            members = allowed[name]
            if members is None or value is None:
                continue
            unknown = sorted(value.keys() - members) if isinstance(value, dict) else [""]
            if unknown:
                raise _refused(name, f"{name}.{unknown[0]}".rstrip("."), call)
        return left_out


def _has_no_effect(name: str, value: Any) -> bool:
    return value is None or (name in _NO_OPS and value == _NO_OPS[name])


def _refused(name: str, path: str, call: UpstreamCall) -> UnsupportedParameter:
    reason = CLOSED.get(name)
    because = f", because {reason}" if reason else ""
    message = f'`{path[:64]}` is not passed on by the model "{call.request.model}"{because}; leave it out'
    message += ", or let the operator allow it with `extra_body` of the backend"
    return UnsupportedParameter(message, param=f"extra_body.{path}")


EVERYTHING = ExtraBodyPolicy({}, "all")
"""Passes everything on."""
