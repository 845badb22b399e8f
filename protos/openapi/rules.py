"""Rules of fields as JSON Schema: ranges and words of the service's table, constants of the protos' comments."""

import re
from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

from parley.rpc.field_rules import (
    ENTRY_FIELDS,
    LABEL_FIELDS,
    LABELS,
    MAX_ENTRIES,
    MAX_NAME_LENGTH,
    NAME_FIELDS,
    RANGES,
    VALUES,
)

Schema = dict[str, Any]

_CONSTANT = re.compile(r"^Always `([^`]+)`\.")


def of_value(place: str, field: Field, comment: str) -> Schema:
    """Returns the constraints on a field's values besides its type.

    Args:
        place: The field's full name, as `Message.role`.
        field: The field, or the field of a map's values.
        comment: The field's comment.

    Raises:
        ValueError: The comment does not show the range or the words of the table.
    """
    if field.type == Field.TYPE_BOOL:
        return {"const": True} if comment == "Always true." else {}
    if place in RANGES:
        low, high = RANGES[place]
        _require(place, comment, f"{low} to {high}")
        return {"minimum": low, "maximum": high}
    return _of_text(place, comment) if field.type == Field.TYPE_STRING else {}


def of_labels(place: str, comment: str) -> Schema:
    """Returns the constraints on a map of labels, or none for another field."""
    if place not in LABEL_FIELDS:
        return {}
    count, key_length, value_length = LABELS
    _require(place, comment, f"up to {count}, keys to {key_length} characters, values to {value_length}")
    values = {"type": "string", "maxLength": value_length}
    return {"maxProperties": count, "propertyNames": {"maxLength": key_length}, "additionalProperties": values}


def of_entries(place: str, comment: str, keyword: str) -> Schema:
    """Returns the most entries of an array or a map under `maxItems` or `maxProperties`, or none without a limit."""
    if place not in ENTRY_FIELDS:
        return {}
    _require(place, comment, f"Up to {MAX_ENTRIES} entries")
    return {keyword: MAX_ENTRIES}


def _of_text(place: str, comment: str) -> Schema:
    if constant := _CONSTANT.search(comment):
        return {"const": constant[1]}
    if place in VALUES:
        *words, last = (f"`{word}`" for word in VALUES[place])
        _require(place, comment, f"{', '.join(words)} or {last}")
        return {"enum": [*VALUES[place]]}
    if place in NAME_FIELDS:
        _require(place, comment, f"up to {MAX_NAME_LENGTH} characters without spaces")
        return {"pattern": f"^[!-~]{{1,{MAX_NAME_LENGTH}}}$"}
    return {}


def _require(place: str, comment: str, text: str) -> None:
    if text not in comment:
        raise ValueError(f"the comment of {place} must contain {text!r}, as in the table of rules: {comment}")
