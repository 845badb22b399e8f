"""The top level of the file, and the checks of what its parts say about each other."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Annotated, ClassVar

from parley.config.admin import AdminConfig
from parley.config.auth import Auth, Issuer
from parley.config.backends import BackendConfig
from parley.config.budgets import Budgets
from parley.config.guards import Guard, problems, unknown_guard
from parley.config.limits import DEFAULT_PLANS, LimitsConfig, Plan
from parley.config.markers import Constraints
from parley.config.models import Model, Price, Target
from parley.config.stores import Retention, SqliteConfig, StoreConfig
from parley.config.tls import Tls
from parley.config.types import FileState, Strict

_NAME = re.compile(r"[A-Za-z0-9._-]{1,32}")


class Config(Strict):
    """The top level of the file."""

    backends: Annotated[dict[str, BackendConfig], Constraints(min_length=1)]
    """Backends by name: up to 32 letters, digits, `.`, `_` and `-`."""
    models: Annotated[list[Model], Constraints(min_length=1)]
    """Models that requests can name."""
    default_model: str | None = None
    """Id of the model for requests without `model`. Default: `model` is required."""
    store: StoreConfig = SqliteConfig()
    """Where sessions, keys and limits are kept."""
    sessions: Retention = Retention()
    """Retention of sessions."""
    auth: Auth = Auth()
    """Authentication of callers, besides API keys."""
    tls: Tls | None = None
    """TLS of the listeners. Default: none, on addresses of this machine only."""
    limits: LimitsConfig = LimitsConfig()
    """Limits of every key and account. Default: none."""
    plans: Annotated[dict[str, Plan], Constraints(min_length=1)] = field(default_factory=DEFAULT_PLANS.copy)
    """Plans of accounts by name, which replace the default: `free` without access to the API, and `pro`. The first API
    key of an account sets its plan; the default is `pro`, or the first plan with access."""
    budgets: Budgets = Budgets()
    """Notifications about limits of days and months that are nearly used up."""
    admin: AdminConfig = AdminConfig()
    """Access of administrators over the network."""
    prices: dict[str, Price] = field(default_factory=dict)
    """Prices by target: `backend/model`, or the backend alone. Receipts add them up."""
    guards: dict[str, Guard] = field(default_factory=dict)
    """Guards by name: up to 32 letters, digits, `.`, `_` and `-`. They check the texts of requests and answers."""
    default_guards: list[str] = field(default_factory=list)
    """Names of the guards of models without `guards` of their own, in order."""

    _files: ClassVar[Mapping[str, FileState]] = {}

    @property
    def files(self) -> Mapping[str, FileState]:
        """The files that values were read from, and their states at that time."""
        return self._files

    def __post_init__(self) -> None:
        """Checks that every name in use is defined exactly once."""
        for name in self.backends:
            if not _NAME.fullmatch(name):
                raise ValueError(f'backends: "{name}" is not a name; use up to 32 letters, digits, ".", "_", "-"')
        ids = [model.id for model in self.models]
        for index, model in enumerate(self.models):
            if model.id in ids[:index]:
                raise ValueError(f'models[{index}].id: "{model.id}" is used twice; give each model its own id')
            for position, target in enumerate(model.targets):
                if target.backend not in self.backends:
                    known = ", ".join(self.backends)
                    where = f"models[{index}].targets[{position}].backend"
                    raise ValueError(f'{where}: no backend is named "{target.backend}"; use one of: {known}')
        if self.default_model is not None and self.default_model not in ids:
            raise ValueError(f'default_model: no model has the id "{self.default_model}"; use one of: {", ".join(ids)}')
        if self.auth.mtls is not None and self.tls is None:
            raise ValueError("auth.mtls: client certificates need `tls`; set tls.certificate and tls.key")
        if self.admin.mtls is not None and self.tls is None:
            raise ValueError("admin.mtls: client certificates need `tls`; set tls.certificate and tls.key")
        _check_fallbacks(self.models)
        _check_targets(self.models, self.prices)
        _check_coalesce(self.models, self.backends)
        _check_issuers(self.auth.issuers, self.plans)
        _check_guards(self)


def with_files(config: Config, files: Mapping[str, FileState]) -> Config:
    """Sets the files that values were read from, which are no part of the file; returns the configuration."""
    object.__setattr__(config, "_files", files)
    return config


def _check_fallbacks(models: Sequence[Model]) -> None:
    ids = [model.id for model in models]
    for index, model in enumerate(models):
        for position, fallback in enumerate(model.fallbacks):
            where = f"models[{index}].fallbacks[{position}]"
            if fallback not in ids:
                raise ValueError(f'{where}: no model has the id "{fallback}"; use one of: {", ".join(ids)}')
            if fallback == model.id or fallback in model.fallbacks[:position]:
                raise ValueError(f'{where}: "{fallback}" is listed already; remove it')


def _check_targets(models: Sequence[Model], prices: Mapping[str, Price]) -> None:
    """Checks that equal targets have equal limits, and that every price belongs to a target."""
    known: dict[str, tuple[str, Target]] = {}
    for index, model in enumerate(models):
        for position, target in enumerate(model.targets):
            where = f"models[{index}].targets[{position}]"
            first, same = known.setdefault(target.name, (where, target))
            capacity = (target.max_concurrent, target.max_queued)
            if capacity != (same.max_concurrent, same.max_queued):
                raise ValueError(f"{where}: `max_concurrent` and `max_queued` must be equal to those in {first}")
    for name in prices:
        if name not in known:
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


def _check_guards(config: Config) -> None:
    """Checks that every guard is complete, and that every list names guards that exist."""
    for name in config.guards:
        if not _NAME.fullmatch(name):
            raise ValueError(f'guards: "{name}" is not a name; use up to 32 letters, digits, ".", "_", "-"')
    lists = {f"models[{index}].guards": model.guards or () for index, model in enumerate(config.models)}
    for path, names in ({"default_guards": config.default_guards} | lists).items():
        if problem := unknown_guard(names, config.guards, path):
            raise ValueError(problem)
    for problem in problems(config.guards):
        raise ValueError(problem)


def _check_issuers(issuers: Sequence[Issuer], plans: Mapping[str, Plan]) -> None:
    """Checks that every issuer is listed once, and that its plan exists."""
    names = [issuer.issuer for issuer in issuers]
    for index, issuer in enumerate(issuers):
        where = f"auth.issuers[{index}]"
        if issuer.issuer in names[:index]:
            raise ValueError(f'{where}.issuer: "{issuer.issuer}" is listed already; remove it')
        if issuer.plan is not None and issuer.plan not in plans:
            raise ValueError(f'{where}.plan: no plan is named "{issuer.plan}"; use one of: {", ".join(plans)}')
