"""The rules of a field, which stand in its type and which pydantic reads. Only validation imports pydantic.

A worker imports this module, but validates nothing: pydantic would take a third of its imports, and 14 MB.
"""

from collections.abc import Callable
from typing import Any


class Constraints:
    """The bounds of a value.

    Args:
        bounds: As in pydantic's schemas: `ge`, `gt`, `le`, `min_length`, `max_length`, `allow_inf_nan`.
    """

    def __init__(self, **bounds: float) -> None:
        self.bounds = bounds

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        """Adds the bounds to the schema of the value, which is inside of the parsers and checks around it."""
        schema = value = handler(source)
        while "schema" in value:
            value = value["schema"]
        value.update(self.bounds)
        return schema


class Before:
    """Has a function parse the value of the file before its type is checked. It raises ValueError."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        """Puts the function around the schema of the type."""
        from pydantic_core.core_schema import no_info_before_validator_function

        return no_info_before_validator_function(self.function, handler(source))


class After:
    """Has a function check the value, or change it, after its type is checked. It raises ValueError."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], Any]) -> Any:
        """Puts the function around the schema of the type."""
        from pydantic_core.core_schema import no_info_after_validator_function

        return no_info_after_validator_function(self.function, handler(source))


class Instead:
    """Has a function parse the value of the file; its type is not checked. It raises ValueError."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __get_pydantic_core_schema__(self, _source: Any, _handler: Callable[[Any], Any]) -> Any:
        """Returns the schema of the function."""
        from pydantic_core.core_schema import no_info_plain_validator_function

        return no_info_plain_validator_function(self.function)


class ByKind:
    """Has the field `kind` select the member of a union."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Returns the schema of a union with a discriminator."""
        from pydantic import Discriminator

        return Discriminator("kind").__get_pydantic_core_schema__(source, handler)
