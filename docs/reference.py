"""Writes the reference of the configuration into a page: `python -m docs.reference docs/configuration.md OUTPUT`.

Types, ranges and defaults come from the fields of the models in parley.config, descriptions from the docstrings under
the fields, examples from the docstrings of the classes. The reference replaces the text between the page's two markers.
"""

import ast
import inspect
import sys
import textwrap
import types
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, Field, fields
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from parley.config import Config
from parley.config.markers import Constraints, Instead
from parley.config.types import Duration, Size, Strict, field_types, own_fields_first

BEGIN = "<!-- generated from service/parley/config by make gen: begin -->\n"
END = "<!-- generated: end -->"
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))
_SIZES = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))
_PLAIN = {
    date: "day",
    str: "text",
    int: "integer",
    float: "number",
    bool: "`true` or `false`",
    Path: "path",
    Any: "any value",
}
_SECONDS, _BYTES = (get_args(kind)[1].function for kind in (Duration, Size))
_RANGES = (("ge", "at least"), ("gt", "above"), ("le", "at most"))


def reference() -> str:
    """Returns the reference: a section for each model, in the order of the file."""
    return "\n".join(_section(title, model) for title, model in _sections("", Config))


def page(text: str) -> str:
    """Returns a page with the reference between its markers."""
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n{reference()}\n{END}{after}"


def _sections(path: str, model: type[Strict], kind: str = "") -> Iterator[tuple[str, type[Strict]]]:
    """Yields a model and all that it contains, each with its title: its path, and the kind that it belongs to."""
    types_by_name = field_types(model)
    if "kind" in types_by_name:
        kind = "".join(f" of kind `{tag}`" for tag in get_args(types_by_name["kind"]))
    yield (f"`{path}`{kind}" if path else "The top level"), model
    for name, annotation in types_by_name.items():
        for suffix, child in _models(annotation):
            yield from _sections(f"{path}.{name}{suffix}".lstrip("."), child, kind)


def _models(annotation: Any) -> Iterator[tuple[str, type[Strict]]]:
    """Yields the models that a type contains, each with the rest of its path."""
    if isinstance(annotation, type) and issubclass(annotation, Strict):
        yield "", annotation
        return
    suffix = {list: "[]", dict: ".NAME"}.get(get_origin(annotation), "")
    for argument in get_args(annotation):
        for rest, child in _models(argument):
            yield f"{suffix}{rest}", child


def _section(title: str, model: type[Strict]) -> str:
    text, _, example = inspect.cleandoc(model.__doc__ or "").partition("\n\nExample:\n")
    described = _descriptions(model)
    rows = [
        f"| `{field.name}` | {_type(field.type)} | {_default(field)} | {described[field.name]} |"
        for field in own_fields_first(model)
    ]
    table = ["| key | type | default | meaning |", "|---|---|---|---|", *rows]
    block = ["", "```yaml", textwrap.dedent(example), "```"] if example else []
    return "\n".join([f"### {title}", "", " ".join(text.split()), "", *table, *block, ""])


def _descriptions(model: type[Strict]) -> dict[str, str]:
    """Returns the docstrings under the fields of a model and of the models that it extends."""
    found: dict[str, str] = {}
    for owner in reversed([base for base in model.__mro__ if issubclass(base, Strict) and base is not Strict]):
        [body] = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
        assert isinstance(body, ast.ClassDef)  # noqa: S101 - for the type checker
        for statement, following in zip(body.body, body.body[1:], strict=False):
            if isinstance(statement, ast.AnnAssign) and isinstance(following, ast.Expr):
                found[ast.unparse(statement.target)] = " ".join(ast.literal_eval(following.value).split())
    return found


def _type(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """Returns the name of a type, with its unit, values and range."""
    if get_origin(annotation) is Annotated:
        annotation, *metadata = get_args(annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        if all(_is_model(member) for member in members):
            return "mapping"
        names = [_type(member, metadata) for member in members]
        return " or ".join(names)
    return _name(annotation, metadata) + _range(metadata)


def _name(annotation: Any, metadata: Sequence[Any]) -> str:
    functions = [getattr(item, "function", None) for item in metadata]
    if _SECONDS in functions or (annotation is float and any(isinstance(item, Instead) for item in metadata)):
        return "duration"
    if _BYTES in functions:
        return "size"
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    if get_origin(annotation) is list:
        item = get_args(annotation)[0]
        return "list of mappings" if _is_model(item) else f"list of {_type(item)}"
    if get_origin(annotation) is dict or _is_model(annotation):
        return "mapping"
    return _PLAIN[annotation]


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, Strict)


def _range(metadata: Iterable[Any]) -> str:
    """Returns the bounds of a number that are not part of its unit."""
    constraints = [item.bounds for item in metadata if isinstance(item, Constraints)]
    bounds = [f"{word} {item[name]:,}" for name, word in _RANGES for item in constraints if name in item]
    return f", {', '.join(bounds)}" if bounds else ""


def _default(field: Field[Any]) -> str:
    value = _default_value(field)
    if value is MISSING:
        return "required"
    if value is None or value in ("", [], {}):
        return ""
    if isinstance(value, Strict):
        changed = [(one.name, getattr(value, one.name)) for one in fields(value) if _is_changed(value, one)]
        values = ", ".join(f"{name}: {_to_yaml(one, 'duration')}" for name, one in changed)
        return f"`{{{values}}}`" if values else ""
    return f"`{_to_yaml(value, _type(field.type))}`"


def _default_value(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _is_changed(value: Strict, field: Field[Any]) -> bool:
    return field.name != "kind" and getattr(value, field.name) != _default_value(field)


def _to_yaml(value: Any, kind: str) -> str:
    """Formats a value as in YAML, with the largest unit that divides it."""
    if isinstance(value, bool):
        return str(value).lower()
    for units, name in ((_UNITS, "duration"), (_SIZES, "size")):
        if kind.startswith(name):
            return next(f"{value / size:g}{unit}" for size, unit in units if value % size == 0)
    return str(value)


def main(source: Path, output: Path) -> None:
    """Writes the page `source`, with the reference, to `output`."""
    output.write_text(page(source.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
