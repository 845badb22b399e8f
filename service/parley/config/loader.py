"""Loads and validates the configuration. Errors name file, line and path."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from pydantic import Field, PrivateAttr, ValidationError, model_validator

from parley.config import variables
from parley.config.admin import AdminConfig
from parley.config.auth import Auth, Issuer
from parley.config.backends import BackendConfig
from parley.config.budgets import Budgets
from parley.config.explain import explain
from parley.config.limits import DEFAULT_PLANS, LimitsConfig, Plan
from parley.config.models import Model, Price, Target
from parley.config.source import Source, split_path
from parley.config.stores import Retention, SqliteConfig, StoreConfig
from parley.config.tls import Tls
from parley.config.types import ConfigError, Strict

_NAME = re.compile(r"[A-Za-z0-9._-]{1,32}")


class Config(Strict):
    """The top level of the file."""

    backends: dict[str, BackendConfig] = Field(min_length=1)
    """Backends by name: up to 32 letters, digits, `.`, `_` and `-`."""
    models: list[Model] = Field(min_length=1)
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
    plans: dict[str, Plan] = Field(default=DEFAULT_PLANS, min_length=1)
    """Plans of accounts by name, which replace the default: `free` without access to the API, and `pro`. The first API
    key of an account sets its plan; the default is `pro`, or the first plan with access."""
    budgets: Budgets = Budgets()
    """Notifications about limits of days and months that are nearly used up."""
    admin: AdminConfig = AdminConfig()
    """Access of administrators over the network."""
    prices: dict[str, Price] = Field(default={})
    """Prices by target: `backend/model`, or the backend alone. Receipts add them up."""

    _files: Mapping[str, variables.FileState] = PrivateAttr(default_factory=dict)

    @property
    def files(self) -> Mapping[str, variables.FileState]:
        """The files that values were read from, and their states at that time."""
        return self._files

    @model_validator(mode="after")
    def _check_references(self) -> Self:
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
        return self


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


def _check_issuers(issuers: Sequence[Issuer], plans: Mapping[str, Plan]) -> None:
    """Checks that every issuer is listed once, and that its plan exists."""
    names = [issuer.issuer for issuer in issuers]
    for index, issuer in enumerate(issuers):
        where = f"auth.issuers[{index}]"
        if issuer.issuer in names[:index]:
            raise ValueError(f'{where}.issuer: "{issuer.issuer}" is listed already; remove it')
        if issuer.plan is not None and issuer.plan not in plans:
            raise ValueError(f'{where}.plan: no plan is named "{issuer.plan}"; use one of: {", ".join(plans)}')


_DEFAULT = """\
backends:
  local: {kind: llama_cpp}
models:
  - id: smollm2
    targets: [{backend: local}]
    # So small a model needs both: measured, it names Paris 10 times of 10 with them, 3 times without.
    instructions: "You are a helpful assistant. Answer in one short sentence."
    defaults: {temperature: 0, max_tokens: 512}
    history: {max_tokens: 2500}
default_model: smollm2
"""


def load(path: Path | None) -> Config:
    """Loads and validates a file, or the default configuration if `path` is None.

    Raises:
        ConfigError: The file cannot be read or is not a valid configuration.
    """
    return _validate(_read_source(path))


def located_error(path: Path | None, problems: Sequence[str]) -> ConfigError:
    """Returns an error for problems found after loading. Each begins with its path, such as `models[0].id: `."""
    source = _read_source(path)
    return ConfigError("\n".join(source.error(*split_path(problem)) for problem in problems))


def parse(text: str, name: str) -> Config:
    """Parses and validates YAML text.

    Args:
        text: The YAML.
        name: The name of the file in errors.

    Raises:
        ConfigError: The text is not a valid configuration.
    """
    return _validate(Source.read(text, name))


def _read_source(path: Path | None) -> Source:
    if path is None:
        return Source.read(_DEFAULT, "(default configuration)")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: cannot be read ({reason}); name a readable YAML file with --config") from error
    return Source.read(text, str(path))


def _validate(source: Source) -> Config:
    if not isinstance(source.data, dict):
        raise ConfigError(f"{source.name}: must be a mapping with `backends` and `models`")
    expansion = variables.Expansion(source)
    try:
        config = Config.model_validate(expansion.expand(source.data))
    except ValidationError as error:
        problems = [explain(item, Config) for item in error.errors()]
        raise ConfigError("\n".join(source.error(field_path, text) for field_path, text in problems)) from error
    config._files = expansion.files  # noqa: SLF001 - it is not in the YAML
    return config
