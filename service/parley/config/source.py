"""The text of a configuration file: its data and the line of each value."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from parley.config.types import ConfigError

if TYPE_CHECKING:
    import yaml

FieldPath = tuple[str | int, ...]
"""The path of a value: `("models", 0, "id")` for `models[0].id`."""


@dataclass(frozen=True, slots=True)
class Source:
    """One YAML file."""

    name: str
    """The name of the file in errors."""
    data: Any
    """The parsed YAML."""
    lines: Mapping[FieldPath, int]
    """The line of each path, from 1."""

    @classmethod
    def read(cls, text: str, name: str) -> Self:
        """Parses YAML text. Raises ConfigError for invalid YAML and repeated keys."""
        import yaml  # a worker reads none

        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            found = _LineCollector()
            found.visit(node, ())
            source = cls(name, node and loader.construct_document(node), found.lines)
        except yaml.YAMLError as error:
            raise ConfigError(_syntax_error(name, error)) from error
        finally:
            loader.dispose()
        if found.repeated:
            raise ConfigError(
                "\n".join(source.error(field_path, _repeated_key_error(first)) for field_path, first in found.repeated)
            )
        return source

    def error(self, field_path: FieldPath, text: str) -> str:
        """Returns the line of an error message: `parley.yaml:7: models[0].id: must be text`."""
        where = format_path(field_path)
        return f"{self._at(field_path)}: {where}: {text}" if where else f"{self._at(field_path)}: {text}"

    def _at(self, field_path: FieldPath) -> str:
        """Returns file and line of a path; for a path that is not in the file, those of its nearest parent."""
        for size in range(len(field_path), 0, -1):
            if field_path[:size] in self.lines:
                return f"{self.name}:{self.lines[field_path[:size]]}"
        return self.name


class _LineCollector:
    """Collects the line of every path, and the paths of repeated keys with the line of the first one."""

    def __init__(self) -> None:
        self.lines: dict[FieldPath, int] = {}
        self.repeated: list[tuple[FieldPath, int]] = []
        self._seen: set[int] = set()  # a node that has several aliases is visited once

    def visit(self, node: "yaml.Node | None", field_path: FieldPath) -> None:
        if node is None or id(node) in self._seen:
            return
        self._seen.add(id(node))
        for key, line, value in _entries(node):
            entry = (*field_path, key)
            if entry in self.lines:
                self.repeated.append((entry, self.lines[entry]))
            self.lines[entry] = line
            self.visit(value, entry)


def _entries(node: "yaml.Node") -> Iterator[tuple[str | int, int, "yaml.Node"]]:
    """Yields the entries of a mapping or a list: key or index, line, value."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.tag != "tag:yaml.org,2002:merge" and isinstance(key, yaml.ScalarNode):
                yield key.value, key.start_mark.line + 1, value
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield index, value.start_mark.line + 1, value


def format_path(field_path: FieldPath) -> str:
    """Formats a path as in errors: `models[0].timeouts.connect`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in field_path).lstrip(".")


def split_path(text: str) -> tuple[FieldPath, str]:
    """Splits a text such as `models[0].id: must be text` into path and rest; the path is empty if there is none."""
    where, colon, rest = text.partition(": ")
    if not colon or " " in where:
        return (), text
    parts = where.replace("[", ".[").split(".")
    return tuple(int(part[1:-1]) if part.startswith("[") else part for part in parts), rest


def _repeated_key_error(first: int) -> str:
    return f"is set twice, first in line {first}; remove one of them"


def _syntax_error(name: str, error: "yaml.YAMLError") -> str:
    """Returns the place and the reason of a syntax error, without the text there, which may be secret."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None:
        return f"{name}: not valid YAML: {' '.join(str(error).split())}"
    return f"{name}:{mark.line + 1}: not valid YAML: column {mark.column + 1}: {problem}"
