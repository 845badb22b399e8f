"""JSON data as a `google.protobuf.Value`."""

from typing import Any

from google.protobuf.struct_pb2 import Value

MAX_DEPTH = 30
"""Levels of JSON in a Struct, each of which takes three of the 100 that protobuf allows."""
MAX_TEXT_DEPTH = 101
"""Levels of the text of unknown fields: the edge allows 100 for the value of a member."""


def to_value(data: Any, levels: int = MAX_DEPTH) -> Value:
    """Returns JSON data as a Value, with numbers as doubles and null below so many levels."""
    made = Value()
    if data is None or levels < 0:
        made.null_value = 0  # type: ignore[assignment]
    elif isinstance(data, bool):
        made.bool_value = data
    elif isinstance(data, str):
        made.string_value = data
    elif isinstance(data, int | float):
        made.number_value = _double(data)
    elif isinstance(data, list):
        made.list_value.values.extend(to_value(item, levels - 1) for item in data)
    else:
        made.struct_value.SetInParent()
        for key, item in data.items():
            made.struct_value.fields[key].CopyFrom(to_value(item, levels - 1))
    return made


def is_deep(data: Any, levels: int = MAX_DEPTH) -> bool:
    """Returns whether JSON data has more levels of objects and arrays."""
    if not isinstance(data, dict | list):
        return False
    values = data.values() if isinstance(data, dict) else data
    return levels == 0 or any(is_deep(value, levels - 1) for value in values)


def _double(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return float("inf" if number > 0 else "-inf")
