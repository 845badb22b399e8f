"""The rules of names, models, scopes, plans and limits. Errors name the field."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, get_args

from parley.config import (
    LIMIT_NAMES,
    STORAGE_LIMITS,
    UNLIMITED,
    WILDCARD,
    Config,
    Limits,
    Plan,
    default_plan,
    merged,
)
from parley.core.errors import InvalidRequest
from parley.core.ports import Scope

SCOPES: tuple[Scope, ...] = get_args(Scope)
MAX_TIME = 2**32 - 1
"""The latest time in Unix seconds that the API can write."""

_MAX_NAME = 128
# Control, format (as bidirectional overrides) and surrogate characters, and line and paragraph separators.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class LimitChange:
    """A change of limits.

    Attributes:
        values: New limits by name, as in the configuration; None removes one.
        replace: Whether all other limits are removed.
    """

    values: Mapping[str, float | str | None] = field(default_factory=dict)
    replace: bool = False

    def apply(self, limits: Limits, *, of_key: bool = False) -> Limits:
        """Returns the limits after the change; those of a key have no storage.

        Raises:
            InvalidRequest: A limit is unknown, or its value is out of range.
        """
        known = [name for name in LIMIT_NAMES if not (of_key and name in STORAGE_LIMITS)]
        for name in self.values:
            if name not in known:
                raise InvalidRequest(f'`limits` has no "{name}"; the limits are: {", ".join(known)}', param="limits")
        kept: Mapping[str, Any] = {} if self.replace else limits.set_values()
        changed = {name: value for name, value in {**kept, **self.values}.items() if value is not None}
        return _validated(changed) if changed else UNLIMITED


@dataclass(frozen=True, slots=True)
class Rules:
    """What the configuration defines and a key or account may name.

    Attributes:
        models: The ids of the models, wildcards with their `*`, and aliases.
        plans: The plans by name, with all limits that apply to their accounts.
        default_plan: The plan of a new account.
    """

    models: Collection[str]
    plans: Mapping[str, Plan]
    default_plan: str

    @classmethod
    def of(cls, config: Config) -> Self:
        """Returns the rules of a configuration."""
        ids = [found for model in config.models for found in (model.id, *(alias.id for alias in model.aliases))]
        limits = config.limits.account
        plans = {name: Plan(api=one.api, limits=merged(limits, one.limits)) for name, one in config.plans.items()}
        return cls(ids, plans, default_plan(config.plans))

    def require_models(self, models: Sequence[str]) -> tuple[str, ...]:
        """Returns the ids without duplicates. Raises InvalidRequest for an unknown one.

        Allowed are also ids that a wildcard stands for, and ids with `*` at the end that stand for some of these.
        """
        _known("models", "no model has the id", [one for one in models if not self._is_covered(one)], self.models)
        return tuple(dict.fromkeys(models))

    def _is_covered(self, wanted: str) -> bool:
        """Returns whether an id, or the ids that one with `*` stands for, are those of a model, or of a wildcard."""
        start = wanted.removesuffix(WILDCARD)
        if start != wanted and any(model.startswith(start) for model in self.models):
            return True
        return wanted in self.models or any(
            model.endswith(WILDCARD) and start.startswith(model[:-1]) for model in self.models
        )

    def require_plan(self, plan: str) -> str:
        """Returns the plan. Raises InvalidRequest if the configuration does not define it."""
        return _known("plan", "no plan is named", [plan], self.plans)[0]


def require_scopes(scopes: Sequence[str]) -> tuple[Scope, ...]:
    """Returns the scopes without duplicates. Raises InvalidRequest for an unknown one."""
    found: tuple[Any, ...] = _known("scopes", "no scope is named", scopes, SCOPES)
    return found


def require_name(param: str, name: str) -> str:
    """Returns the name without outer white space. Raises InvalidRequest if it is empty, too long or not printable."""
    stripped = name.strip()
    if not stripped:
        raise InvalidRequest(f"`{param}` must not be empty", param=param)
    if len(stripped) > _MAX_NAME:
        raise InvalidRequest(f"`{param}` must have at most {_MAX_NAME} characters", param=param)
    if _UNPRINTABLE.search(stripped):
        raise InvalidRequest(f"`{param}` must not have control characters", param=param)
    return stripped


def require_time(param: str, seconds: int | None) -> int | None:
    """Returns the time. Raises InvalidRequest if it is too far in the future."""
    if seconds is not None and not 0 <= seconds <= MAX_TIME:
        raise InvalidRequest(f"`{param}` must be a time before the year 2106", param=param)
    return seconds


def _validated(values: Mapping[str, float | str]) -> Limits:
    from parley.config.validation import ValidationError, validated  # most workers never need it

    try:
        limits: Limits = validated(Limits, values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise InvalidRequest(f"`limits.{name}`: {first['msg']}", param=f"limits.{name}") from error
    return limits


def _known(param: str, problem: str, names: Sequence[str], known: Collection[str]) -> tuple[str, ...]:
    for name in names:
        if name not in known:
            raise InvalidRequest(f'`{param}`: {problem} "{name}"; use one of: {", ".join(known)}', param=param)
    return tuple(dict.fromkeys(names))
