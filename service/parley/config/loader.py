"""Loads and validates the configuration. Errors name file, line and path."""

from collections.abc import Sequence
from pathlib import Path

from parley.config import variables
from parley.config.explain import explain
from parley.config.file import Config, with_files
from parley.config.source import Source, split_path
from parley.config.types import ConfigError, FileState, file_state
from parley.config.upstream_requests import RemoteBackend
from parley.config.validation import ValidationError, validated

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
        config: Config = validated(Config, expansion.expand(source.data))
    except ValidationError as error:
        problems = [explain(item, Config) for item in error.errors()]
        raise ConfigError("\n".join(source.error(field_path, text) for field_path, text in problems)) from error
    return with_files(config, expansion.files | _certificates(config))


def _certificates(config: Config) -> dict[str, FileState]:
    """Returns the state of each file of certificates of backends and guards; workers read them at their start."""
    backends = [one for one in config.backends.values() if isinstance(one, RemoteBackend)]
    users = [*backends, *config.guards.values()]
    paths = [path for one in users for path in (one.ca, one.client_certificate, one.client_key) if path is not None]
    return {str(path.absolute()): state for path in paths if (state := file_state(path)) is not None}
