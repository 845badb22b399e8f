"""Checks the configuration."""

import stat
from collections.abc import Iterator
from pathlib import Path

from parley.cli.diagnosis.finding import Finding
from parley.cli.shared.checks import config_problems
from parley.config import Config, ConfigError
from parley.config.loader import load, located_error
from parley.config.source import FieldPath, Source, format_path

_CHECK = "configuration"
_SECRETS = ("api_key", "api_keys", "secret")
_REFERENCES = ("${", "file:")
_REMEDY = "correct the file; docs/configuration.md describes every key"


def read(file: Path | None) -> tuple[Config | None, list[Finding]]:
    """Returns the configuration, None if it is invalid, and the findings."""
    try:
        config = load(file)
    except ConfigError as error:
        return None, [_failed(line) for line in str(error).splitlines()]
    if problems := config_problems(config):
        return config, [_failed(line) for line in str(located_error(file, problems)).splitlines()]
    name = file or "the default configuration"
    counts = f"{_count(len(config.backends), 'backend')}, {_count(len(config.models), 'model')}"
    return config, [Finding(_CHECK, "ok", f"{name} is valid: {counts}"), *_risks(file, config)]


def _failed(line: str) -> Finding:
    return Finding(_CHECK, "failed", line, _REMEDY)


def _risks(file: Path | None, config: Config) -> Iterator[Finding]:
    """Yields what works but should be changed."""
    used = {target.backend for model in config.models for target in model.targets}
    for name in config.backends.keys() - used:
        yield Finding(
            _CHECK, "warning", f"no model uses the backend {name}", "add it to a model's targets, or remove it"
        )
    if file is None:
        return
    mode = file.stat().st_mode
    if mode & stat.S_IWOTH:
        yield Finding(_CHECK, "warning", f"other users can change {file}", f"run `chmod o-w {file}`")
    source = Source.read(file.read_text(encoding="utf-8"), str(file))
    for path in _secrets_in_clear(source.data, ()):
        where = f"{file}:{source.lines.get(path, 0)}: {format_path(path)} has the secret itself"
        yield Finding(_CHECK, "warning", where, "write ${NAME} and set the variable NAME, or ${file:/path}")
        if mode & stat.S_IROTH:
            yield Finding(_CHECK, "warning", f"other users can read the secrets in {file}", f"run `chmod o-r {file}`")
            return


def _secrets_in_clear(value: object, path: FieldPath) -> Iterator[FieldPath]:
    """Yields the paths of secrets that are in the file instead of a reference."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from _secrets_in_clear(item, (*path, key))
    elif (
        isinstance(value, str)
        and next(one for one in reversed(path) if isinstance(one, str)) in _SECRETS
        and not value.startswith(_REFERENCES)
    ):
        yield path


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
