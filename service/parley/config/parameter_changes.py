"""How requests to a server differ from those of callers: what a backend says of all its models, and a target of one."""

from collections.abc import Mapping
from dataclasses import field, fields, replace
from typing import Annotated, Any, TypeVar

from parley.config.markers import Constraints
from parley.config.types import Strict

_FIXED = frozenset({"model", "messages", "stream", "n", "messages.role", "messages.content"})
"""Parameters that Parley needs as they are to read the answer."""
_OF_MESSAGES = "messages."
_ROLE = "developer"
"""In `rename` the name of a role; it is no parameter."""


class Accepts(Strict):
    """The most of each that a target accepts. 0: the target does not accept it at all.

    Example:
        models:
          - id: support
            targets: [{backend: local, accepts: {n: 1, stop: 4, tools: 128, images: 0}}]
    """

    n: Annotated[int | None, Constraints(ge=1)] = None
    """Largest number of choices. Default: no limit, as for the others."""
    stop: Annotated[int | None, Constraints(ge=0)] = None
    """Largest number of stop sequences."""
    tools: Annotated[int | None, Constraints(ge=0)] = None
    """Largest number of tools."""
    images: Annotated[int | None, Constraints(ge=0)] = None
    """Largest number of images in the conversation."""


class ParameterChanges(Strict):
    """What is changed in the parameters of requests, in this order: `drop`, `rename`, `default`, `set`."""

    drop: list[str] = field(default_factory=list)
    """Parameters that are left out, for servers that reject them; `messages.NAME` is a field of every message."""
    rename: dict[str, str] = field(default_factory=dict)
    """Parameters that get another name, as `max_tokens: max_completion_tokens`. If a request has both, that with the
    new name stays. `developer: system` renames the role of messages."""
    roles: dict[str, str] = field(default_factory=dict)
    """Roles of messages that get another name, for example `{developer: system}`."""
    default: dict[str, Any] = field(default_factory=dict)
    """Parameters for requests without them."""
    set: dict[str, Any] = field(default_factory=dict)
    """Parameters in place of those of requests."""
    accepts: Accepts = Accepts()
    """The most choices, stop sequences, tools and images that are accepted. Other requests go to the next target or
    fallback, or are rejected."""

    def __post_init__(self) -> None:
        """Rejects changes that Parley could not read the answer with, and names that are not clear."""
        for name, names in self._changes():
            if fixed := sorted(_FIXED.intersection(names)):
                raise ValueError(f"{name}: `{fixed[0]}` cannot be changed here; remove it")
            for one in names:
                _check_name(name, one)
        renamed = list(self.rename.values())
        for old, new in self.rename.items():
            if renamed.count(new) > 1:
                raise ValueError(f"rename.{old}: two parameters would get the name `{new}`; keep one")
            if old != new and _ROLE in (old, new) and (old, new) != (_ROLE, "system"):
                raise ValueError(f"rename.{old}: the role can only be renamed as `developer: system`")

    @property
    def changed(self) -> tuple[str, ...]:
        """The names of the fields that change something."""
        return tuple(name for name, names in self._changes() if names)

    @property
    def parameter_names(self) -> dict[str, str]:
        """The new name of each parameter of `rename`."""
        return {old: new for old, new in self.rename.items() if old != _ROLE}

    @property
    def role_names(self) -> dict[str, str]:
        """The new name of each role, whether of `roles` or of `rename`."""
        return self.roles | {old: new for old, new in self.rename.items() if old == _ROLE}

    def _changes(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        return (
            ("drop", tuple(self.drop)),
            ("rename", (*self.rename, *self.rename.values())),
            ("roles", tuple(self.roles)),
            ("default", tuple(self.default)),
            ("set", tuple(self.set)),
        )


def _check_name(change: str, name: str) -> None:
    """Rejects a name that no parameter has: it would be sent as it stands, or change nothing."""
    plain = name.removeprefix(_OF_MESSAGES) if change == "drop" else name
    if not plain:
        raise ValueError(f"{change}: the name of a parameter is empty; remove it")
    if "." in plain and change != "roles":
        raise ValueError(f'{change}: "{name}" is a part of a parameter; name the whole parameter')


Changed = TypeVar("Changed", bound=ParameterChanges)


def merged_changes(target: Changed, backend: ParameterChanges) -> Changed:
    """Returns a target with the changes of its backend beside its own, which win.

    A parameter that the target renames, also to its own name, is neither dropped nor renamed by the backend, and a
    parameter does not get a name that the target uses up. What the backend adds or sets is not sent if the target
    drops, adds or sets the same parameter.
    """
    own = target.parameter_names
    decided = {*target.drop, *target.default, *target.set}
    kept = {old: new for old, new in backend.parameter_names.items() if not {old, new} & {*own, *own.values()}}
    return replace(
        target,
        drop=[*target.drop, *(name for name in backend.drop if name not in own)],
        rename=kept | own,
        roles=backend.role_names | target.role_names,
        default=_without(backend.default, decided) | target.default,
        set=_without(backend.set, decided) | target.set,
        accepts=_merged_limits(target.accepts, backend.accepts),
    )


def _without(values: Mapping[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _merged_limits(own: Accepts, others: Accepts) -> Accepts:
    known: Mapping[str, Any] = {one.name: getattr(own, one.name) for one in fields(Accepts)}
    return replace(others, **{name: limit for name, limit in known.items() if limit is not None})
