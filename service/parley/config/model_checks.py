"""The checks of what models, targets, backends and prices say about each other. They raise ValueError."""

from collections.abc import Mapping, Sequence

from parley.config.backends import BackendConfig
from parley.config.metadata import Price
from parley.config.model_index import ModelIndex
from parley.config.models import Model
from parley.config.targets import WILDCARD, Target


def check_models(
    models: Sequence[Model],
    default_model: str | None,
    backends: Mapping[str, BackendConfig],
    prices: Mapping[str, Price],
) -> None:
    """Checks the models of a configuration. Errors begin with the path of the value."""
    _check_ids(models)
    index = ModelIndex(models)
    for position, model in enumerate(models):
        for number, target in enumerate(model.targets):
            _check_target(f"models[{position}].targets[{number}]", model, target, backends)
        _check_fallbacks(f"models[{position}].fallbacks", model, index, models)
    if default_model is not None and index.find(default_model) is None:
        raise ValueError(f'default_model: no model has the id "{default_model}"; use one of: {_ids(models)}')
    _check_equal_targets(models)
    _check_prices(models, prices)
    _check_coalesce(models, backends)


def _ids(models: Sequence[Model]) -> str:
    return ", ".join(model.id for model in models)


def _check_ids(models: Sequence[Model]) -> None:
    known: set[str] = set()
    for position, model in enumerate(models):
        if model.id in known:
            raise ValueError(f'models[{position}].id: "{model.id}" is used twice; give each model its own id')
        known.add(model.id)
    for position, model in enumerate(models):
        for number, alias in enumerate(model.aliases):
            where = f"models[{position}].aliases[{number}].id"
            if alias.id in known:
                raise ValueError(f'{where}: "{alias.id}" is used twice; an alias needs an id of its own')
            if model.is_wildcard or alias.id.endswith(WILDCARD):
                raise ValueError(f'{where}: an id with "{WILDCARD}" has no aliases; remove it')
            known.add(alias.id)


def _check_target(where: str, model: Model, target: Target, backends: Mapping[str, BackendConfig]) -> None:
    if target.backend not in backends:
        known = ", ".join(backends)
        raise ValueError(f'{where}.backend: no backend is named "{target.backend}"; use one of: {known}')
    if WILDCARD in target.model and not model.is_wildcard:
        raise ValueError(f'{where}.model: "{WILDCARD}" needs a model whose id ends with "{WILDCARD}"; name the model')
    if target.model.count(WILDCARD) > 1:
        raise ValueError(f'{where}.model: may have one "{WILDCARD}"; name the model')
    if target.changed and backends[target.backend].kind == "parley":
        field = target.changed[0]
        raise ValueError(f"{where}.{field}: a backend of kind parley takes parameters as they are; remove it")


def _check_fallbacks(where: str, model: Model, index: ModelIndex, models: Sequence[Model]) -> None:
    for position, fallback in enumerate(model.fallbacks):
        at = f"{where}[{position}]"
        if WILDCARD in fallback:
            is_known = model.is_wildcard and index.configured(fallback) is not None
        else:
            is_known = index.find(fallback) is not None
        if not is_known:
            raise ValueError(f'{at}: no model has the id "{fallback}"; use one of: {_ids(models)}')
        if fallback == model.id or fallback in model.fallbacks[:position]:
            raise ValueError(f'{at}: "{fallback}" is listed already; remove it')


def _check_equal_targets(models: Sequence[Model]) -> None:
    """Checks that equal targets have equal limits."""
    known: dict[str, tuple[str, Target]] = {}
    for index, model in enumerate(models):
        for position, target in enumerate(model.targets):
            where = f"models[{index}].targets[{position}]"
            first, same = known.setdefault(target.name, (where, target))
            capacity = (target.max_concurrent, target.max_queued)
            if capacity != (same.max_concurrent, same.max_queued):
                raise ValueError(f"{where}: `max_concurrent` and `max_queued` must be equal to those in {first}")


def _check_prices(models: Sequence[Model], prices: Mapping[str, Price]) -> None:
    """Checks that every price belongs to a target."""
    known = {target.name: target for model in models for target in model.targets}
    wildcards = [name.split(WILDCARD) for name in known if WILDCARD in name]
    for name in prices:
        if name not in known and not any(name.startswith(start) and name.endswith(end) for start, end in wildcards):
            raise ValueError(f'prices: no target is named "{name}"; use one of: {", ".join(known)}')


def _check_coalesce(models: Sequence[Model], backends: Mapping[str, BackendConfig]) -> None:
    """Checks that every backend of a model with `coalesce` can collect tokens."""
    for index, model in enumerate(models):
        for target in model.targets if model.coalesce != "off" else ():
            kind = backends[target.backend].kind
            if kind in {"parley", "any_llm"}:
                raise ValueError(
                    f'models[{index}].coalesce: "{target.backend}" is a backend of kind {kind}, which cannot collect'
                    " tokens; remove it, or use other backends"
                )
