"""Finds the model that an id stands for."""

import re
from collections.abc import Sequence
from functools import lru_cache

from parley.config.models import Alias, Model
from parley.config.targets import WILDCARD

_NAME = re.compile(r"[A-Za-z0-9@][A-Za-z0-9._:/@+~-]{0,255}")
"""What may stand in place of a `*`. Backends put it into JSON, and some into the path of a URL."""
_NO_SEGMENTS = frozenset({"", ".", ".."})
"""Segments of a path that servers merge or resolve, so that another model would be named."""
_MAX_ID = 512
_CACHED = 1024
"""The number of ids whose model is kept: its copy takes longer than all else that a wildcard costs a call."""


class ModelIndex:
    """Finds models by the ids that requests name: exact ids and aliases first, then the longest wildcard.

    Args:
        models: The models of the configuration.
    """

    def __init__(self, models: Sequence[Model]) -> None:
        self._exact = {model.id: model for model in models}
        self._aliases = {alias.id: (model, alias) for model in models for alias in model.aliases}
        wildcards = [(model.id[:-1], model) for model in models if model.is_wildcard]
        self._wildcards = sorted(wildcards, key=lambda one: -len(one[0]))
        self._find_wildcard = lru_cache(_CACHED)(self._of_wildcard)

    def find(self, model_id: str) -> Model | None:
        """Returns the model; None if no model has the id. A wildcard is returned under the id."""
        model = self._exact.get(model_id)
        if model is not None and not model_id.endswith(WILDCARD):
            return model
        if (found := self._aliases.get(model_id)) is not None:
            return found[0]
        return self._find_wildcard(model_id) if len(model_id) <= _MAX_ID else None

    def alias(self, model_id: str) -> Alias | None:
        """Returns the alias with this id; None if it is none."""
        found = self._aliases.get(model_id)
        return found[1] if found is not None and model_id not in self._exact else None

    def configured(self, model_id: str) -> Model | None:
        """Returns the model with exactly this id in the configuration, also if it is a wildcard."""
        return self._exact.get(model_id)

    def wildcard(self, pattern: str) -> Model | None:
        """Returns the longest wildcard that has all names of an id with `*`; None if none has."""
        return next((model for prefix, model in self._wildcards if pattern[:-1].startswith(prefix)), None)

    def _of_wildcard(self, model_id: str) -> Model | None:
        for prefix, model in self._wildcards:
            if model_id.startswith(prefix):
                rest = model_id[len(prefix) :]
                return model.named(model_id) if _is_name(rest) else None
        return None


def _is_name(rest: str) -> bool:
    return _NAME.fullmatch(rest) is not None and _NO_SEGMENTS.isdisjoint(rest.split("/")) and ".." not in rest
