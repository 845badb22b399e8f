"""The labels of sessions."""

from collections.abc import Iterable

from parley.core.errors import InvalidRequest

MAX_NAME_LENGTH = 64
"""The characters of a label's name."""


def read_filter(labels: Iterable[str]) -> dict[str, str | None]:
    """Returns the labels of a filter, each written as `name=value` or `name`. Raises InvalidRequest."""
    found: dict[str, str | None] = {}
    for label in labels:
        name, separator, value = label.partition("=")
        if not is_name(name, MAX_NAME_LENGTH) or "\0" in value:
            raise InvalidRequest("`labels` must be `name` or `name=value`", param="labels")
        found[name] = value if separator else None
    return found


def is_name(name: str, length: int) -> bool:
    """Returns whether a label may have the name."""
    return 0 < len(name) <= length and "=" not in name and "\0" not in name
