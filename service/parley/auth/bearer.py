"""Bearer credentials: an API key or an access token."""

from parley.auth.api_keys import ApiKeys
from parley.auth.tokens.access_tokens import AccessTokens
from parley.core.ports import Caller, Credentials


class Bearer:
    """Authenticates API keys and access tokens; implements `parley.core.ports.Authenticator`.

    A value with a dot is a token: keys have none, and every JSON Web Token has two.
    """

    def __init__(self, keys: ApiKeys, tokens: AccessTokens) -> None:
        self._keys = keys
        self._tokens = tokens

    async def authenticate(self, credentials: Credentials) -> Caller:
        """Returns the caller of an `Authorization` header, `Bearer sk-…` or `Bearer eyJ…`.

        Raises:
            ParleyError: As `ApiKeys.authenticate` and `AccessTokens.authenticate`.
        """
        token = _token(credentials.authorization or "")
        if token is None:
            return await self._keys.authenticate(credentials)
        return await self._tokens.authenticate(token)


def _token(authorization: str) -> str | None:
    """Returns the token of a header; None if the header has none."""
    if "." not in authorization:
        return None
    scheme, _, value = authorization.partition(" ")
    token = value.strip()
    return token if scheme.lower() == "bearer" and not token.startswith("sk-") else None
