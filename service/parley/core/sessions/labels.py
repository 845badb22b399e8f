"""The titles and labels of sessions: what they may be, and the labels of a filter."""

from collections.abc import Iterable

from parley.core.errors import InvalidRequest

MAX_TITLE_LENGTH = 512
"""The characters of a title."""
MAX_LABELS = 16
"""The labels of a session."""
MAX_NAME_LENGTH = 64
"""The characters of a label's name."""
MAX_VALUE_LENGTH = 512
"""The characters of a label's value."""


def read_filter(labels: Iterable[str]) -> dict[str, str | None]:
    """Returns the labels of a filter, each written as `name=value` or `name`. A session must have all of them.

    Raises:
        InvalidRequest: A label is invalid, there are too many, or one name has two values, which no session has.
    """
    found: dict[str, str | None] = {}
    for label in labels:
        name, separator, value = label.partition("=")
        if name_fault(name) or value_fault(value):
            raise InvalidRequest("`labels` must be `name` or `name=value`", param="labels")
        wanted = value if separator else None
        known = found.setdefault(name, wanted)
        if None not in (known, wanted) and known != wanted:
            raise InvalidRequest(f"`labels` must not have two values for one name: {name}", param="labels")
        found[name] = known if wanted is None else wanted
    if len(found) > MAX_LABELS:
        raise InvalidRequest(f"`labels` may have at most {MAX_LABELS} entries", param="labels")
    return found


def title_fault(title: str) -> str | None:
    """Returns what is wrong with a title; None for a valid one."""
    if len(title) > MAX_TITLE_LENGTH or "\0" in title:
        return f"`title` may have at most {MAX_TITLE_LENGTH} characters, and no NUL"
    return None


def name_fault(name: str) -> str | None:
    """Returns what is wrong with the name of a label; None for a valid one."""
    if not 0 < len(name) <= MAX_NAME_LENGTH or "=" in name or "\0" in name:
        return f"The names of `labels` must have 1 to {MAX_NAME_LENGTH} characters, without = and NUL"
    return None


def value_fault(value: str) -> str | None:
    """Returns what is wrong with the value of a label; None for a valid one."""
    if len(value) > MAX_VALUE_LENGTH or "\0" in value:
        return f"The values of `labels` may have at most {MAX_VALUE_LENGTH} characters, and no NUL"
    return None
