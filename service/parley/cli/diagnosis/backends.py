"""Calls each backend once."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

from parley.backends.llama_cpp.command import socket_path
from parley.cli.diagnosis.finding import Finding
from parley.cli.shared.probe import ProbeFailed, probe
from parley.config import AnyLLMBackend, Config, LlamaCppBackend

_CHECK = "backends"


async def check(config: Config, run_dir: Path | None) -> list[Finding]:
    """Returns a finding for each backend that a model uses, in the order of the configuration.

    Args:
        config: The configuration.
        run_dir: The run folder of the running service; None if it does not run.
    """
    called = _first_models(config)
    found: dict[str, Finding] = {}
    for name, model in called:
        if isinstance(config.backends[name], AnyLLMBackend):  # the import of its package blocks all other calls
            found[name] = await _check(config, name, model, run_dir)
    others = [(name, model) for name, model in called if name not in found]
    answers = await asyncio.gather(*(_check(config, name, model, run_dir) for name, model in others))
    found |= {name: finding for (name, _), finding in zip(others, answers, strict=True)}
    return [found[name] for name, _ in called]


def skipped(config: Config) -> Iterator[Finding]:
    """Yields a finding for each backend that a model uses, without calls."""
    for name, _ in _first_models(config):
        yield Finding(_CHECK, "skipped", f"{name}: not called, because of --no-calls")


def _first_models(config: Config) -> list[tuple[str, str]]:
    """Returns each backend with the first model that targets name there."""
    found: dict[str, str] = {}
    for model in config.models:
        for target in model.targets:
            found.setdefault(target.backend, target.model)
    return [(name, found[name]) for name in config.backends if name in found]


async def _check(config: Config, name: str, model: str, run_dir: Path | None) -> Finding:
    backend, model_dir = config.backends[name], None
    if isinstance(backend, LlamaCppBackend) and (model_dir := _model_dir(run_dir, name)) is None:
        return Finding(_CHECK, "skipped", f"{name}: `parley up` starts it; run doctor again while that runs")
    shown = f"{name} ({model})" if model else name
    try:
        reply = await probe(name, backend, model, model_dir)
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
