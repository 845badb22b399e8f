"""The file of LiteLLM's proxy: its values, and what of it has no counterpart."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from parley.config.source import FieldPath, Source, format_path

# The second form is that of tools which make the file, such as envsubst.
_VARIABLE = re.compile(r"os\.environ/([A-Za-z_][A-Za-z0-9_]*)|\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass(frozen=True, slots=True)
class Remark:
    """A setting that has no counterpart, or another meaning. Never has a value of the file, which may be secret.

    Attributes:
        path: The path of the setting.
        line: Its line in the file; 0 if it has none.
        text: What to do instead.
    """

    path: str
    line: int
    text: str


@dataclass(slots=True)
class Remarks:
    """Collects remarks on a file, each text once for each setting."""

    source: Source
    found: dict[tuple[str, str], Remark] = field(default_factory=dict)

    def add(self, path: FieldPath, text: str) -> None:
        """Adds a remark on the setting at `path`."""
        name = format_path(path)
        line = next((self.source.lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self.source.lines), 0)
        self.found.setdefault((name, text), Remark(name, line, text))

    def all(self) -> list[Remark]:
        """Returns the remarks in the order of the file."""
        return sorted(self.found.values(), key=lambda remark: (remark.line, remark.path))


def variable(value: object) -> str:
    """Returns the name of the variable that a value such as `os.environ/NAME` or `${NAME}` names; "" for others."""
    found = _VARIABLE.fullmatch(value.strip()) if isinstance(value, str) else None
    return (found[1] or found[2]) if found else ""


def text(value: object) -> str:
    """Returns a value as in Parley's configuration: `os.environ/NAME` as `${NAME}`."""
    name = variable(value)
    return f"${{{name}}}" if name else str(value)


def number(value: object) -> float | None:
    """Returns a positive number, also of text such as `"30"`; None for all other values."""
    try:
        found = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else 0.0
    except ValueError:
        return None
    if not 0 < found < float("inf"):
        return None
    return int(found) if found.is_integer() else found


def mapping(value: object) -> Mapping[str, Any]:
    """Returns a mapping with names as text; empty for all other values."""
    return {str(name): item for name, item in value.items()} if isinstance(value, dict) else {}


def entries(value: object) -> list[Any]:
    """Returns a list; a single text as a list of one; empty for all other values."""
    if isinstance(value, str):
        return [value]
    return value if isinstance(value, list) else []


def pairs(value: object) -> Iterator[tuple[str, list[Any]]]:
    """Yields the entries of `fallbacks`: a list of mappings `{model: [fallback, …]}`, or one mapping."""
    for one in [value] if isinstance(value, dict) else entries(value):
        for name, models in mapping(one).items():
            yield name, entries(models)
