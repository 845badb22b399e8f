"""Replaces `${NAME}` and `${file:PATH}` in the values of a configuration."""

import os
import re
from pathlib import Path
from typing import Any

from parley.config.source import FieldPath, Source
from parley.config.types import ConfigError, FileState

_REFERENCE = re.compile(r"\$\{(?:file:(?P<file>[^}]*)|(?P<name>[A-Za-z_][A-Za-z0-9_]*))\}")
_FILE_URL = re.compile(r"file:(?P<path>\S+)")
FILE = "_FILE"
"""Suffix of the variable that names the file of a value, as in the images of PostgreSQL and others."""


class Expansion:
    """Replaces references, and collects the files that it reads.

    Attributes:
        files: The state of each file when it was read.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.files: dict[str, FileState] = {}

    def expand(self, value: Any, field_path: FieldPath = ()) -> Any:
        """Replaces references in every string.

        `${NAME}` is the environment variable, or the content of the file in `NAME_FILE`; `${file:PATH}` is the content
        of that file, and so is `file:PATH` as a whole value.

        Raises:
            ConfigError: Neither variable is set, or the file cannot be read or is empty.
        """
        if isinstance(value, dict):
            return {key: self.expand(item, (*field_path, str(key))) for key, item in value.items()}
        if isinstance(value, list):
            return [self.expand(item, (*field_path, index)) for index, item in enumerate(value)]
        if not isinstance(value, str):
            return value
        try:
            if whole := _FILE_URL.fullmatch(value):
                return self._content(whole["path"], "")
            return _REFERENCE.sub(self._value, value)
        except ValueError as error:
            raise ConfigError(self._source.error(field_path, str(error))) from error

    def _value(self, match: re.Match[str]) -> str:
        """Returns the value of a reference. Raises ValueError."""
        name = match["name"]
        if name is None:
            return self._content(match["file"], "")
        if name in os.environ:
            return os.environ[name]
        if name + FILE not in os.environ:
            raise ValueError(f"the variable {name} is not set; set it, or {name + FILE}")
        return self._content(os.environ[name + FILE], f" of {name + FILE}")

    def _content(self, name: str, owner: str) -> str:
        path = Path(name)
        if not owner and not path.is_absolute():
            raise ValueError(f"the file {name} must be an absolute path, as in ${{file:/run/secrets/key}}")
        try:
            state = path.stat()
            text = path.read_text(encoding="utf-8-sig").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8"
            raise ValueError(f"{name}{owner} cannot be read ({reason}); name a readable file") from error
        if not text:
            raise ValueError(f"{name}{owner} is empty; write the value into it")
        self.files[str(path.absolute())] = (state.st_mtime_ns, state.st_ino, state.st_size)
        return text
