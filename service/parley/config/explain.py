"""Turns pydantic's errors into texts about the configuration file: the fault, the allowed values, the nearest name."""

import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from parley.config.source import FieldPath, split_path
from parley.config.types import Strict, field_types

_MESSAGES = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "dataclass_type": "must be a mapping",
    "dict_type": "must be a mapping",
    "finite_number": "must be a finite number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number of fewer digits",
    "int_type": "must be a whole number",
    "less_than_equal": "must be at most {le}",
    "list_type": "must be a list",
    "literal_error": "must be one of {expected}",
    "missing": "is required",
    "model_attributes_type": "must be a mapping",
    "path_type": "must be the path of a file",
    "string_too_short": "must not be empty",
    "string_type": "must be text; put it in quotes",
    "too_short": "must have at least {min_length} entry",
    "union_tag_not_found": "is required; use one of: {known}",
}
_TAG_ERRORS = ("union_tag_invalid", "union_tag_not_found")


def explain(item: Any, root: type[Strict]) -> tuple[FieldPath, str]:
    """Explains one of pydantic's errors.

    Args:
        item: An entry of `ValidationError.errors()`.
        root: The model that was validated.

    Returns:
        The path in the file and the text of the error. The text never repeats a value: it may be secret.
    """
    field_path, owner, kind, members = _locate(item["loc"], root)
    code, context = item["type"], item.get("ctx", {})
    if code == "value_error":
        inner, text = split_path(str(context["error"]))
        return (*field_path, *inner), text
    if code == "unexpected_keyword_argument":
        return field_path, _unknown_field(str(field_path[-1]), owner, members)
    if code in _TAG_ERRORS:
        known = list(_tags(kind))
        field_path = (*field_path, str(context["discriminator"]).strip("'"))
        if code == "union_tag_invalid":
            return field_path, f"is unknown; {_suggestion(str(context['tag']), known)}"
        context = {"known": ", ".join(known)}
    is_off = item.get("input") is False and getattr(owner, str(field_path[-1]), ...) is None  # `health: off`
    if code == "dataclass_type" and is_off:
        return field_path, "must be a mapping; remove it, because it is off where it is absent"
    return field_path, _MESSAGES[code].format(**context) if code in _MESSAGES else item["msg"]


def _suggestion(name: str, known: Iterable[str]) -> str:
    """Returns a hint with the nearest known name, or with all known names if none is near."""
    from difflib import get_close_matches

    names = list(known)
    nearest = get_close_matches(name, names, 1)
    return f'did you mean "{nearest[0]}"?' if nearest else f"use one of: {', '.join(names)}"


def _unknown_field(name: str, owner: type[Strict] | None, members: Mapping[str, type[Strict]]) -> str:
    """Returns the text for an unknown field of a model, which may be one of the members of a union."""
    known = field_types(owner) if owner else {}
    others = [tag for tag, member in members.items() if name in field_types(member)]
    own = next((tag for tag, member in members.items() if member is owner), None)
    if own is None or not others:
        return f"is unknown; {_suggestion(name, known)}"
    return f"is not a field of the kind {own}, but of {', '.join(others)}; remove it"


def _locate(
    loc: FieldPath, root: type[Strict]
) -> tuple[FieldPath, type[Strict] | None, Any, Mapping[str, type[Strict]]]:
    """Resolves pydantic's path, which contains the tags of unions, against the models.

    Returns:
        The path without tags, the model whose field its last part is, the type of that field, and the members of the
        last union by their `kind`.
    """
    field_path: list[str | int] = []
    owner: type[Strict] | None = None
    members: Mapping[str, type[Strict]] = {}
    kind: Any = root
    for part in loc:
        kind = _unwrap(kind)
        tags = _tags(kind)
        if str(part) in tags:
            kind, members = tags[str(part)], tags
            continue
        field_path.append(part)
        owner, kind = _resolve_part(kind, part)
    return tuple(field_path), owner, _unwrap(kind), members


def _resolve_part(kind: Any, part: str | int) -> tuple[type[Strict] | None, Any]:
    """Returns the model, if the value is one, and the type of the part."""
    if isinstance(kind, type) and issubclass(kind, Strict):
        return kind, field_types(kind).get(str(part))
    arguments = get_args(kind)
    return None, arguments[-1] if arguments else None


def _unwrap(kind: Any) -> Any:
    """Returns a type without its annotations and without None."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) in (Union, types.UnionType):
        members = [_unwrap(member) for member in get_args(kind) if member is not type(None)]
        return members[0] if len(members) == 1 else kind
    return kind


def _tags(kind: Any) -> dict[str, type[Strict]]:
    """Returns the members of a union of models by their `kind`; empty for every other type."""
    if get_origin(kind) not in (Union, types.UnionType):
        return {}
    members = [member for member in map(_unwrap, get_args(kind)) if isinstance(member, type)]
    found = [(field_types(member).get("kind"), member) for member in members if issubclass(member, Strict)]
    return {tag: member for kind, member in found if get_origin(kind) is Literal for tag in get_args(kind)}
