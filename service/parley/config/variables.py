"""Replaces `${NAME}` in the values of a configuration."""

import os
import re
from pathlib import Path
from typing import Any

from parley.config.source import FieldPath, Source
from parley.config.types import ConfigError

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
FILE = "_FILE"
"""Suffix of the variable that names the file of a value, as in the images of PostgreSQL and others."""


def expand(value: Any, field_path: FieldPath, source: Source) -> Any:
    """Replaces `${NAME}` in every string by the environment variable, or by the content of the file in `NAME_FILE`.

    Raises:
        ConfigError: Neither is set, or the file cannot be read.
    """
    if isinstance(value, dict):
        return {key: expand(item, (*field_path, str(key)), source) for key, item in value.items()}
    if isinstance(value, list):
        return [expand(item, (*field_path, index), source) for index, item in enumerate(value)]
    if not isinstance(value, str):
        return value
    try:
        return _VARIABLE.sub(lambda match: _value(match[1]), value)
    except ValueError as error:
        raise ConfigError(source.error(field_path, str(error))) from error


def _value(name: str) -> str:
    """Returns the value of a variable. Raises ValueError."""
    if name in os.environ:
        return os.environ[name]
    if name + FILE not in os.environ:
        raise ValueError(f"the variable {name} is not set; set it, or {name + FILE}")
    path = os.environ[name + FILE]
    try:
        return Path(path).read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise ValueError(f"{path} of {name + FILE} cannot be read ({reason}); name a readable file") from error
