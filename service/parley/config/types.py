"""Types shared by all parts of the configuration."""

import inspect
import re
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeAlias, dataclass_transform

from parley.config.markers import After, Before, Constraints

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?")
_SIZE = re.compile(r"(\d+)\s*(KiB|MiB|GiB)?")
_COUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([kKMG])?")
_UNITS = {"k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, None: 1}
_BYTES = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, None: 1}
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, None: 1.0}


FileState: TypeAlias = tuple[int, int, int]
"""Time of the last change (ns), inode and size of a file: those of a replaced file differ."""


def file_state(path: Path) -> FileState | None:
    """Returns the state of a file; None if it is missing or cannot be read."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


class ConfigError(Exception):
    """The configuration is invalid. The text has one line for each problem: file, line, path and what to change."""


def _seconds(value: object) -> object:
    """Parses `500ms`, `5s`, `10m`, `2h`, `30d` or a number of seconds."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("must be a duration: a number of seconds, or text such as 500ms, 5s, 10m, 2h, 30d")
    return float(match[1]) * _SECONDS[match[2]]


Duration = Annotated[float, Before(_seconds), Constraints(gt=0, allow_inf_nan=False)]
"""A duration in seconds, above 0. In YAML: a number of seconds, or text such as `500ms`, `5s`, `10m`, `2h`, `30d`."""


def _bytes(value: object) -> object:
    """Parses `64KiB`, `32MiB`, `1GiB` or a number of bytes."""
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None and isinstance(value, str):
        raise ValueError("must be a size: a number of bytes, or text such as 64KiB, 32MiB, 1GiB")
    return int(match[1]) * _BYTES[match[2]] if match else value


Size = Annotated[int, Before(_bytes)]
"""A size in bytes. In YAML: a number of bytes, or text such as `64KiB`, `32MiB`, `1GiB`."""


def _count(value: object) -> object:
    """Parses `100k`, `5M`, `1.5G` or a whole number."""
    if not isinstance(value, str):
        return value
    match = _COUNT.fullmatch(value.strip())
    number = float(match[1]) * _UNITS[match[2]] if match else 0.5
    if not number.is_integer():
        raise ValueError("must be a count: a whole number, or text such as 100k, 5M, 1.5G")
    return int(number)


Count = Annotated[int, Before(_count)]
"""A number of things. In YAML: a whole number, or text such as `100k`, `5M`, `1.5G`."""

Money = Annotated[float, Constraints(allow_inf_nan=False)]
"""An amount of money, in the currency of the prices."""


def matches(pattern: str, message: str) -> After:
    """Returns a validator that rejects text that `pattern` does not match completely, with the error `message`."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(message)
        return text

    return After(check)


def restore_off(value: object) -> object:
    """Restores `off`, which YAML parses as false."""
    return "off" if value is False else value


_SESSION_MODES = ("auto", "on_request", "off")


def session_policy(value: object) -> object:
    """Returns the options of `sessions`, of which the short form has the mode only. Raises ValueError."""
    if isinstance(value, dict):
        return value
    mode = restore_off(value)
    if mode not in _SESSION_MODES:
        raise ValueError("must be one of 'auto', 'on_request' or 'off'")
    return {"mode": mode}


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
class Strict:
    """The base of immutable dataclasses that reject unknown fields of the file.

    Their constructors check nothing: `parley.config.validation` does. So a worker, which gets a valid configuration,
    does without pydantic.
    """

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def __init_subclass__(cls) -> None:
        """Makes the class a dataclass."""
        dataclass(frozen=True, kw_only=True)(cls)


def own_fields_first(kind: type[Strict]) -> list[Field[Any]]:
    """Returns the fields of a model, those of the models that it extends after its own."""
    found = {one.name: one for one in fields(kind)}
    owners = [inspect.get_annotations(owner) for owner in kind.__mro__]
    return [found[name] for name in dict.fromkeys(name for names in owners for name in names) if name in found]


def field_types(kind: type[Strict]) -> dict[str, Any]:
    """Returns the type of each field by name, with its markers."""
    return {one.name: one.type for one in own_fields_first(kind)}
