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
from parley.config.metadata import Price
from parley.config.models import Model
from parley.config.parameter_changes import ParameterChanges, merged_changes
from parley.config.stores import Retention, SqliteConfig, StoreConfig
from parley.config.targets import Target
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
    """Id of the model for requests without `model`: that of a model, or one that an id with `*` stands for. Default:
    `model` is required."""
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
    """Prices by target: `backend/model`, or the backend alone. Receipts add them up. A price of `backend/*` is that of
    all models of such a target that have none of their own."""
    guards: dict[str, Guard] = field(default_factory=dict)
    """Guards by name: up to 32 letters, digits, `.`, `_` and `-`. They check the texts of requests and answers."""
    default_guards: list[str] = field(default_factory=list)
    """Names of the guards of models without `guards` of their own, in order."""

    _files: ClassVar[Mapping[str, FileState]] = {}

    @property
    def files(self) -> Mapping[str, FileState]:
        """The files that values were read from, and their states at that time."""
        return self._files

    def effective(self, target: Target) -> Target:
        """Returns a target with the changes of its backend beside its own."""
        backend = self.backends[target.backend]
        return merged_changes(target, backend) if isinstance(backend, ParameterChanges) else target

    def __post_init__(self) -> None:
        """Checks that every name in use is defined exactly once."""
        for name in self.backends:
            if not _NAME.fullmatch(name):
                raise ValueError(f'backends: "{name}" is not a name; use up to 32 letters, digits, ".", "_", "-"')
        from parley.config.model_checks import check_models  # a worker validates nothing

        check_models(self.models, self.default_model, self.backends, self.prices)
        if self.auth.mtls is not None and self.tls is None:
            raise ValueError("auth.mtls: client certificates need `tls`; set tls.certificate and tls.key")
        if self.admin.mtls is not None and self.tls is None:
            raise ValueError("admin.mtls: client certificates need `tls`; set tls.certificate and tls.key")
        _check_issuers(self.auth.issuers, self.plans)
        _check_guards(self)


def with_files(config: Config, files: Mapping[str, FileState]) -> Config:
    """Sets the files that values were read from, which are no part of the file; returns the configuration."""
    object.__setattr__(config, "_files", files)
    return config


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
