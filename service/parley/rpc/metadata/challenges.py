"""The `www-authenticate` of a failed authentication (RFC 6750, 3; RFC 9728, 5.1)."""

from parley.core.errors import (
    AccessRevoked,
    InsufficientScope,
    InvalidApiKey,
    InvalidToken,
    ParleyError,
    PlanRequired,
    ScopeRequired,
    Unauthenticated,
)

NAME = "www-authenticate"
_INVALID, _INSUFFICIENT = "invalid_token", "insufficient_scope"
_ERRORS: dict[type[ParleyError], str | None] = {
    Unauthenticated: None,
    PlanRequired: None,
    InvalidApiKey: _INVALID,
    AccessRevoked: _INVALID,
    InvalidToken: _INVALID,
    InsufficientScope: _INSUFFICIENT,
    ScopeRequired: _INSUFFICIENT,
}


class Challenges:
    """Writes challenges.

    Args:
        metadata_url: The URL of the metadata of the service as a protected resource. A path, which the edge completes
            for REST callers, is not written.
    """

    def __init__(self, metadata_url: str | None) -> None:
        is_complete = metadata_url is not None and not metadata_url.startswith("/")
        self._metadata = {"resource_metadata": metadata_url} if is_complete else {}

    def metadata(self, error: ParleyError) -> tuple[tuple[str, str], ...]:
        """Returns the challenge as metadata; empty for an error that other credentials do not mend."""
        if type(error) not in _ERRORS:
            return ()
        values = {"realm": "parley"}
        code = _ERRORS[type(error)]
        if code:
            values |= {"error": code, "error_description": _quotable(error.message)}
        if isinstance(error, InsufficientScope):
            values["scope"] = _quotable(" ".join(error.scopes))
        pairs = (values | self._metadata).items()
        return ((NAME, "Bearer " + ", ".join(f'{name}="{value}"' for name, value in pairs)),)


def _quotable(text: str) -> str:
    """Returns the text with the characters that RFC 6750 allows in a challenge."""
    plain = text.replace('"', "'").replace("\\", "/")
    return "".join(letter if " " <= letter <= "~" else "?" for letter in plain)
