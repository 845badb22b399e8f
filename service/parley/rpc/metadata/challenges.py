"""The `www-authenticate` of a failed authentication (RFC 6750, 3; RFC 9728, 5.1)."""

from urllib.parse import urlsplit

from parley.core.errors import (
    InsufficientScope,
    InvalidApiKey,
    InvalidToken,
    ParleyError,
    PlanRequired,
    ScopeRequired,
    Unauthenticated,
)

NAME = "www-authenticate"
WELL_KNOWN = "/.well-known/oauth-protected-resource"
_INVALID, _INSUFFICIENT = "invalid_token", "insufficient_scope"
_ERRORS: dict[type[ParleyError], str | None] = {
    Unauthenticated: None,
    PlanRequired: None,
    InvalidApiKey: _INVALID,
    InvalidToken: _INVALID,
    InsufficientScope: _INSUFFICIENT,
    ScopeRequired: _INSUFFICIENT,
}


class Challenges:
    """Writes challenges.

    Args:
        resource: The public identifier of the service; None if it is not configured. The edge then adds the URL of the
            metadata for REST callers.
    """

    def __init__(self, resource: str | None) -> None:
        self._metadata = {"resource_metadata": metadata_url(resource)} if resource else {}

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


def metadata_url(resource: str) -> str:
    """Returns the URL of a resource's metadata: the well-known path before that of the resource (RFC 9728, 3.1)."""
    parts = urlsplit(resource)
    return f"{parts.scheme}://{parts.netloc}{WELL_KNOWN}{parts.path.rstrip('/')}"


def _quotable(text: str) -> str:
    """Returns the text with the characters that RFC 6750 allows in a challenge."""
    plain = text.replace('"', "'").replace("\\", "/")
    return "".join(letter if " " <= letter <= "~" else "?" for letter in plain)
