"""The headers of callers that backends receive."""

from collections.abc import Mapping, Sequence


def forwarded(metadata: Mapping[str, str], names: Sequence[str]) -> Sequence[tuple[str, str]]:
    """Returns the headers that some backend may receive. One that is not printable ASCII is left out.

    Args:
        metadata: The call's metadata.
        names: The names in lower case.
    """
    found = ((name, metadata.get(name, "")) for name in names)
    return tuple((name, value) for name, value in found if value and value.isascii() and value.isprintable())
