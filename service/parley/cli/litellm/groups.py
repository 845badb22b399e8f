"""Joins the deployments of one `model_name` into a model with several targets."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from parley.cli.litellm import model_info, tables
from parley.cli.litellm.backends import Backends
from parley.cli.litellm.source import Remarks, number, variable
from parley.config.source import FieldPath
from parley.config.targets import target_name

_MILLION = 10**6


@dataclass(frozen=True, slots=True)
class Deployment:
    """An entry of `model_list`.

    Attributes:
        name: The `model_name`, which deployments share.
        params: The `litellm_params`.
        info: The `model_info`.
        path: The path of the entry.
    """

    name: str
    params: dict[str, Any]
    info: dict[str, Any]
    path: FieldPath


@dataclass(slots=True)
class Groups:
    """Collects deployments, and returns the models."""

    backends: Backends
    remarks: Remarks
    prices: dict[str, dict[str, float]] = field(default_factory=dict)
    _limits: dict[str, int] = field(default_factory=dict)
    _targets: dict[tuple[str, int], list[tuple[Deployment, dict[str, Any]]]] = field(default_factory=dict)

    def add(self, deployment: Deployment) -> None:
        """Adds a deployment, unless Parley cannot call it."""
        path = (*deployment.path, "litellm_params")
        target = self.backends.target(deployment.params, path)
        if target is None:
            return
        self._remark(deployment, path)
        self._price(deployment, target)
        target |= model_info.dropped(deployment.params, path, self.remarks)
        order = number(deployment.params.get("order")) if "*" not in deployment.name else 0
        self._targets.setdefault((deployment.name, int(order or 0)), []).append((deployment, target))

    def models(self) -> tuple[list[dict[str, Any]], dict[str, dict[str, float]]]:
        """Returns the models in the order of the file, and the prices of their targets.

        Deployments of a higher `order` become a model of their own, which is a fallback of the one before it.
        """
        found: list[dict[str, Any]] = []
        for name in dict.fromkeys(name for name, _ in self._targets):
            orders = sorted(order for one, order in self._targets if one == name)
            ids = [name, *(f"{name}.order-{order}" for order in orders[1:])]
            group = [self._model(id_, self._targets[name, order]) for id_, order in zip(ids, orders, strict=True)]
            if len(ids) > 1:
                group[0]["fallbacks"] = ids[1:]
                text = "deployments of a higher `order` are models of their own, and fallbacks"
                self.remarks.add((*self._targets[name, orders[1]][0][0].path, "litellm_params", "order"), text)
            found += group
        self._limit(found)
        return found, self.prices

    def _limit(self, models: Sequence[dict[str, Any]]) -> None:
        """Sets the limits of targets. A target has the same limit in all models."""
        for target in (target for model in models for target in model["targets"]):
            if limit := self._limits.get(target_name(target["backend"], target["model"])):
                target["max_concurrent"] = limit

    def _model(self, name: str, members: Sequence[tuple[Deployment, dict[str, Any]]]) -> dict[str, Any]:
        model: dict[str, Any] = {"id": name, "targets": self._weighted(members)}
        if defaults := self._common(members):
            model["defaults"] = defaults
        if timeouts := self._timeouts(members):
            model["timeouts"] = timeouts
        if metadata := model_info.metadata([deployment.info for deployment, _ in members]):
            model["metadata"] = metadata
        return model

    def _weighted(self, members: Sequence[tuple[Deployment, dict[str, Any]]]) -> list[dict[str, Any]]:
        """Returns the targets, each once, with LiteLLM's weights: `weight`, else `rpm`, else `tpm`."""
        weights: list[float] | None = None
        for name in ("weight", "rpm", "tpm") if len(members) > 1 else ():
            values = [number(deployment.params.get(name)) for deployment, _ in members]
            if any(values):
                weights = [value or 1.0 for value in values]
                break
        targets: dict[str, dict[str, Any]] = {}
        for index, (deployment, target) in enumerate(members):
            one = targets.setdefault(target_name(target["backend"], target["model"]), dict(target))
            if weights:
                one["weight"] = _short(one.get("weight", 0) + weights[index])
            if limit := number(deployment.params.get("max_parallel_requests")):
                self._limits.setdefault(target_name(target["backend"], target["model"]), max(1, int(limit)))
        return list(targets.values())

    def _common(self, members: Sequence[tuple[Deployment, dict[str, Any]]]) -> dict[str, Any]:
        """Returns the request parameters of the deployments. Those of the first win, because a model has one set."""
        found: dict[str, Any] = {}
        for deployment, _ in members:
            for name in deployment.params.keys() & tables.DEFAULTS:
                value = deployment.params[name]
                if found.setdefault(name, value) != value:
                    path = (*deployment.path, "litellm_params", name)
                    self.remarks.add(path, "differs from that of the model's first deployment, whose value is used")
        return dict(sorted(found.items()))

    def _timeouts(self, members: Sequence[tuple[Deployment, dict[str, Any]]]) -> dict[str, float]:
        """Returns the time limits, the longest of the deployments."""
        found: dict[str, float] = {}
        names = (("stream_timeout", "first_token"), ("timeout", "total"), ("request_timeout", "total"))
        for deployment, _ in members:
            for name, ours in names:
                if value := number(deployment.params.get(name)):
                    path = (*deployment.path, "litellm_params", name)
                    if found.setdefault(ours, value) != value:
                        self.remarks.add(path, "differs among the deployments of the model; the longest is used")
                    found[ours] = max(found[ours], value)
        return found

    def _price(self, deployment: Deployment, target: dict[str, Any]) -> None:
        """Adds the prices of a target. Prices of prompts and answers are needed, so that one alone gets 0 beside it."""
        values = {**deployment.info, **deployment.params}
        known = {ours: number(values.get(name)) for name, ours in tables.PRICES.items()}
        price = {ours: _short(value * _MILLION) for ours, value in known.items() if value}
        name = target_name(target["backend"], target["model"])
        if price and variable(target["model"]):
            path = (*deployment.path, "litellm_params", "model")
            self.remarks.add(path, "its prices need the name itself in place of the variable; left out")
        elif price:
            self.prices[name] = {"prompt": 0, "completion": 0} | price

    def _remark(self, deployment: Deployment, path: FieldPath) -> None:
        known = tables.USED_PARAMS | tables.DEFAULTS | tables.PRICES.keys()
        for name in deployment.params:
            if name not in known:
                self.remarks.add((*path, name), tables.PARAMS.get(name, "is unknown; left out"))
        if deployment.params.keys() & {"rpm", "tpm"}:
            limits = next(name for name in ("rpm", "tpm") if name in deployment.params)
            self.remarks.add(
                (*path, limits), "weights the targets of a model with several; a target has no limit: set `limits`"
            )
        if deployment.params.get("max_parallel_requests") is not None:
            self.remarks.add((*path, "max_parallel_requests"), "`max_concurrent` is that of one worker, not of all")
        for name in deployment.info.keys() - tables.USED_INFO - tables.PRICES.keys() - model_info.KNOWN:
            self.remarks.add((*deployment.path, "model_info", name), "has no counterpart in `metadata`; left out")


def _short(value: float) -> float:
    """Returns a number without the rounding errors of its last digits, whole numbers as such."""
    rounded = round(value, 9)
    return int(rounded) if rounded == int(rounded) else rounded
