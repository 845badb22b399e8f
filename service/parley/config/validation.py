"""Validates values against the classes of the configuration, with pydantic, which only this package imports late.

A worker imports it for the first change of limits over the admin API, and for access tokens.
"""

import os
from functools import cache
from typing import Any

# No plugin extends these classes. Searching for plugins reads the metadata of every package at every start.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

from pydantic import TypeAdapter, ValidationError

__all__ = ["ValidationError", "validated"]


def validated(kind: Any, value: Any) -> Any:
    """Returns the value as the type, which may be an annotated one. Raises ValidationError, a ValueError."""
    return _adapter(kind).validate_python(value)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
