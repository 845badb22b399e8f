"""The models that requests name: the ids of the configuration, their aliases, and the names of wildcards."""

from collections.abc import Mapping
from datetime import date
from typing import NamedTuple

from parley.config import WILDCARD, Config, Metadata, Model, ModelIndex
from parley.core.errors import InvalidRequest, ModelNotFound, ModelRetired
from parley.core.ports import Caller


class Retirement(NamedTuple):
    """The end of an alias.

    Attributes:
        day: The last day on which requests may name it, in UTC.
        model_id: The id to use.
    """

    day: date
    model_id: str


class ModelCatalogue:
    """Finds the model that a request names, and lists those that a caller may use.

    Args:
        config: The configuration.
    """

    def __init__(self, config: Config) -> None:
        self._index = ModelIndex(config.models)
        self._models = {model.id: model for model in config.models}
        self._exact = {model.id: model for model in config.models if not model.is_wildcard}
        self._default = config.default_model
        self._listed: dict[str, Mapping[str, Metadata]] = {}  # by backend, then by its name of the model

    @property
    def has_default(self) -> bool:
        """Whether requests without a model are answered by a default model."""
        return self._default is not None

    def models(self, caller: Caller) -> list[Model]:
        """Returns the models that the caller may use, in the order of the configuration.

        In place of a wildcard stand the names that are known of it: those that its backends have listed, and those that
        the caller's key lists. Without any, the wildcard itself is returned, or the key's part of it: `a/b*` of `a/*`.
        """
        found: list[Model] = []
        for model in self._models.values():
            if not model.is_wildcard:
                found += [model] if _may_use(caller, model) else []
                continue
            names = [name for name in self._known_names(model, caller) if caller.may_use(name)]
            found += [model.named(name) for name in names or self._unknown_names(model, caller)]
        return found

    def model(self, caller: Caller, model_id: str | None, *, of_session: bool = False) -> Model:
        """Returns the requested model, or the default model if `model_id` is empty.

        A model that a wildcard stands for has the requested id; one that an alias names has its own.

        Args:
            caller: The caller.
            model_id: The requested id.
            of_session: Whether the id is that of a session, which outlives the retirement of an alias.

        Raises:
            ModelNotFound: The model does not exist, the caller may not use it, or the alias has retired.
            InvalidRequest: No model is requested and there is no default.
        """
        name = model_id or self._default
        if name is None:
            raise InvalidRequest("`model` is required and must be a string", param="model", kind="missing")
        model = self._exact.get(name)
        if model is not None and caller.may_use(name):  # most calls
            return model
        model = self._index.find(name)
        if model is None or not _may_use(caller, model):
            raise ModelNotFound(name[:256])
        alias = self._index.alias(name)
        if alias is not None and not of_session and alias.retires and alias.is_retired:
            raise ModelRetired(name[:256], alias.retires, model.id)
        return model

    def retirement(self, model_id: str) -> Retirement | None:
        """Returns when the id retires; None if it is no alias, or has no end."""
        alias, model = self._index.alias(model_id), self._index.find(model_id)
        return Retirement(alias.retires, model.id) if alias and model and alias.retires else None

    def _known_names(self, model: Model, caller: Caller) -> list[str]:
        """Returns the known ids that a wildcard stands for."""
        names = [name for name in sorted(caller.models) if self._is_of(model, name)]
        for target in model.targets:
            start, star, end = target.model.partition(WILDCARD)
            listed = self._listed.get(target.backend, ()) if star else ()
            names += [
                model.id[:-1] + name[len(start) : len(name) - len(end)]
                for name in listed
                if name.startswith(start) and name.endswith(end)
            ]
        return [name for name in dict.fromkeys(names) if self._is_of(model, name)]

    def _unknown_names(self, model: Model, caller: Caller) -> list[str]:
        """Returns the ids with `*` that stand for all names of a wildcard that the caller may use."""
        if caller.may_use(model.id):
            return [model.id]
        return [one for one in sorted(caller.models) if one.endswith(WILDCARD) and self._index.wildcard(one) is model]

    def _is_of(self, model: Model, name: str) -> bool:
        """Returns whether a name belongs to this wildcard, and to no model or longer wildcard."""
        found = self._index.find(name)
        return found is not None and found.label == model.id


def _may_use(caller: Caller, model: Model) -> bool:
    """Returns whether the caller's key lists the model, under any of its ids."""
    return caller.may_use(model.id) or any(caller.may_use(alias.id) for alias in model.aliases)
