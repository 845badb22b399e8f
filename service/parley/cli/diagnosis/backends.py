"""Calls each backend once."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from parley.backends.llama_cpp.command import socket_path
from parley.cli.diagnosis.finding import Finding
from parley.cli.shared.probe import ProbeFailed, probe
from parley.config import (
    WILDCARD,
    AnyLLMBackend,
    BackendConfig,
    Config,
    LlamaCppBackend,
    ModelIndex,
    Target,
    UpstreamRequests,
)

_CHECK = "backends"


async def check(config: Config, run_dir: Path | None) -> list[Finding]:
    """Returns the findings on each backend that a model uses, one for each key, in the order of the configuration.

    Args:
        config: The configuration.
        run_dir: The run folder of the running service; None if it does not run.
    """
    called = _first_targets(config)
    found: dict[str, list[Finding]] = {}
    for target in called:
        if isinstance(config.backends[target.backend], AnyLLMBackend):  # the import of its package blocks all others
            found[target.backend] = await _check(config, target, run_dir)
    others = [target for target in called if target.backend not in found]
    answers = await asyncio.gather(*(_check(config, target, run_dir) for target in others))
    found |= {target.backend: findings for target, findings in zip(others, answers, strict=True)}
    return [finding for target in called for finding in found[target.backend]]


def skipped(config: Config) -> Iterator[Finding]:
    """Yields a finding for each backend that a model uses, without calls."""
    for target in _first_targets(config):
        yield Finding(_CHECK, "skipped", f"{target.backend}: not called, because of --no-calls")


def _first_targets(config: Config) -> list[Target]:
    """Returns the first target of each backend, as it is called. One that names its model goes before one with `*`."""
    default = ModelIndex(config.models).find(config.default_model or "")
    targets = [target for model in config.models for target in model.targets]
    if default is not None and default.rest:
        targets += [replace(one, model=one.model.replace(WILDCARD, default.rest)) for one in default.targets]
    found: dict[str, Target] = {}
    for target in sorted(targets, key=lambda one: WILDCARD in one.model):
        found.setdefault(target.backend, config.effective(target))
    return [found[name] for name in config.backends if name in found]


async def _check(config: Config, target: Target, run_dir: Path | None) -> list[Finding]:
    name, model, model_dir = target.backend, target.model, None
    backend = config.backends[name]
    if isinstance(backend, LlamaCppBackend) and (model_dir := _model_dir(run_dir, name)) is None:
        return [Finding(_CHECK, "skipped", f"{name}: `parley up` starts it; run doctor again while that runs")]
    if WILDCARD in model:
        text = f"{name}: callers name its models; a `default_model` of it would be called"
        return [Finding(_CHECK, "skipped", text)]
    shown = f"{name} ({model})" if model else name
    called = {f"{shown}{label}": one for label, one in _with_each_key(backend)}
    return await asyncio.gather(*(_call(text, one, target, model_dir) for text, one in called.items()))


def _with_each_key(backend: BackendConfig) -> Iterator[tuple[str, BackendConfig]]:
    """Yields a backend with each of its keys, and what tells them apart: a call of all would use one that works."""
    if not isinstance(backend, UpstreamRequests) or len(backend.keys) < 2:  # noqa: PLR2004 - several
        yield "", backend
        return
    for number, key in enumerate(backend.keys, 1):
        yield f", key {number}", replace(backend, api_key=key, api_keys=None)


async def _call(shown: str, backend: BackendConfig, target: Target, model_dir: Path | None) -> Finding:
    try:
        reply = await probe(target.backend, backend, target.model, model_dir, target)
    except ProbeFailed as error:
        return Finding(_CHECK, "warning" if error.is_temporary else "failed", f"{shown}: {error}", error.remedy)
    return Finding(_CHECK, "ok", f"{shown} answered in {reply.seconds:.1f} s")


def _model_dir(run_dir: Path | None, name: str) -> Path | None:
    """Returns the folder with the socket of a llama.cpp server, the newest one after reloads; None if none runs."""
    if run_dir is None:
        return None
    sockets = [path for folder in run_dir.glob("models-*") if (path := socket_path(folder, name)).exists()]
    newest = max(sockets, key=lambda path: path.stat().st_mtime, default=None)
    return newest and newest.parent
