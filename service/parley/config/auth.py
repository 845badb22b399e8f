"""The identity of callers: the issuers of access tokens."""

import ipaddress
from dataclasses import field
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from parley.config.markers import After, Before, Constraints
from parley.config.tls import ClientCertificates
from parley.config.types import Duration, Strict

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"]
"""The algorithms of RFC 7518 and RFC 9864 that use a public key. `none` and HMAC (`HS…`) cannot be configured."""

_ALGORITHMS: list[Algorithm] = [
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
    "Ed25519",
]
_WELL_KNOWN = "/.well-known/oauth-protected-resource"
_MAX_SKEW = 600.0  # seconds


def is_secure_url(text: str) -> bool:
    """Returns whether a URL is https, or http to this machine: `localhost` or a loopback address."""
    parts = urlsplit(text)
    return bool(parts.hostname) and (
        parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname or ""))
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _url(text: str) -> str:
    if not is_secure_url(text):
        raise ValueError('must begin with "https://" (http is accepted for localhost and loopback addresses)')
    return text


def _identifier(text: str) -> str:
    """Checks an issuer or resource identifier (RFC 8414, 2; RFC 9728, 1.2)."""
    if "#" in text or "?" in text:
        raise ValueError("must be a URL without a query and without a fragment")
    return _url(text)


def _origin(text: str) -> str:
    """Checks an origin: a scheme and a host, and no path."""
    parts = urlsplit(_url(text))
    if text != f"{parts.scheme}://{parts.netloc}":
        raise ValueError("must be a scheme and a host without a path, such as https://tokens.example.com")
    return text


def _listed(value: Any) -> Any:
    """Makes one text a list of it."""
    return [value] if isinstance(value, str) else value


Url = Annotated[str, After(_url)]
Identifier = Annotated[str, After(_identifier)]
Origin = Annotated[str, After(_origin)]
Text = Annotated[str, Constraints(min_length=1)]


class Claims(Strict):
    """The claims of a token from which the caller's account and restrictions come.

    A claim is named by its name, such as `sub` or `https://example.com/plan`, or by a path of names with dots between
    them, such as `realm_access.plan`.

    Example:
        auth:
          issuers:
            - issuer: https://login.example.com
              audience: parley
              claims: {account: org_id, plan: plan, models: parley.models, limits: parley.limits}
    """

    account: Text = "sub"
    """Claim with the account: text or a number. A token without it is rejected."""
    plan: Text | None = None
    """Claim with the account's plan, a key of `plans`. It replaces the stored plan of the account. Default: none."""
    models: Text | None = None
    """Claim with the ids of the models that the token may use: a list, or text with spaces between them. A token
    without the claim may use all models. Default: none."""
    limits: Text | None = None
    """Claim with limits of the account: an object with the fields of `limits.account`. Limits that are stored for the
    account win. Default: none."""
    scope: Text | None = None
    """Claim with the scopes: a list, or text with spaces between them. Default: `scope`, and `scp` in a token without
    it."""


class PageClient(Strict):
    """The page at `/` as a public client of an issuer: it offers sign-in, with an authorization code and PKCE.

    The issuer must know the page's address, such as `https://chat.example.com/`, as a redirect URI, and must allow its
    origin to call the metadata and the token endpoint (CORS).

    Example:
        auth:
          issuers:
            - issuer: https://login.example.com
              audience: parley
              page: {client_id: parley-page}
    """

    client_id: Text
    """Id of the client."""
    scopes: list[Text] | None = None
    """Scopes that the page requests. Default: `openid`, and the issuer's `scopes` and `grants`."""
    parameters: dict[str, str] | None = None
    """Further parameters of the authorization request: `{audience: https://api.example.com}` for Auth0. Default:
    `resource` (RFC 8707), if `auth.resource` is set."""
    origins: list[Origin] = field(default_factory=list)
    """Origins of the issuer's metadata and token endpoint, where they are not that of the issuer: the page may call
    these, and no others."""


class Issuer(Strict):
    """An authorization server or OpenID provider whose JSON Web Tokens are accepted as bearer tokens.

    Example:
        auth:
          issuers:
            - issuer: https://login.example.com
              audience: parley
              scopes: [openid, email, profile]
              algorithms: [RS256, ES256]
              claims: {account: sub, plan: plan}
    """

    issuer: Identifier
    """Identifier of the issuer, exactly as in the `iss` claim of its tokens. Its metadata is read from
    `/.well-known/openid-configuration` or `/.well-known/oauth-authorization-server`."""
    audience: Annotated[list[Text], Before(_listed), Constraints(min_length=1)]
    """Value, or list of values, of which the token's `aud` must contain one."""
    scopes: list[Text] = field(default_factory=lambda: ["openid", "email", "profile"])
    """Scopes that a token must have, all of them."""
    algorithms: Annotated[list[Algorithm], Constraints(min_length=1)] = field(default_factory=_ALGORITHMS.copy)
    """Accepted signature algorithms. Default: all that use a public key."""
    claims: Claims = Claims()
    """Claims that name the account and restrict the caller."""
    authorized_parties: list[Text] = field(default_factory=list)
    """Ids of the clients whose tokens are accepted: values of `azp`, `client_id`, `appid` or `cid`. Default: all
    clients of the issuer."""
    grants: dict[str, list[Literal["chat", "sessions:read", "sessions:write", "models"]]] = field(default_factory=dict)
    """Scopes of Parley that a scope of the token grants: `{"parley:chat": [chat, models]}`. A token that grants none is
    rejected. Default: every token has all scopes of Parley."""
    id_tokens: bool = False
    """Whether ID tokens are accepted, for providers whose access tokens are not JWTs."""
    account_prefix: str | None = None
    """Prefix of the account's name before the value of the claim. Default: the issuer and `#`, so that accounts of
    different issuers and of API keys differ. With `""`, the account has the name in the claim, and API keys of this
    account share it."""
    plan: Text | None = None
    """Plan of a new account. Default: `pro`, or the first plan with access."""
    jwks_uri: Url | None = None
    """URL of the issuer's keys (JWK Set). Default: as in the issuer's metadata, which is then not read."""
    page: PageClient | None = None
    """The client of the page at `/`. Default: the page offers no sign-in at this issuer."""
    clock_skew: Annotated[Duration, Constraints(le=_MAX_SKEW)] = 60.0
    """Tolerance for differences between the clocks, in `exp`, `nbf` and `iat`."""

    @property
    def prefix(self) -> str:
        """The prefix of account names. An issuer has no `#`, so that the names of two issuers cannot be equal."""
        return f"{self.issuer}#" if self.account_prefix is None else self.account_prefix


class Auth(Strict):
    """Authentication of callers, besides API keys.

    Example:
        auth:
          resource: https://api.example.com
          issuers:
            - {issuer: "https://login.example.com", audience: parley}
    """

    issuers: list[Issuer] = field(default_factory=list)
    """Issuers of access tokens."""
    resource: Identifier | None = None
    """Public URL of Parley, the resource identifier in `/.well-known/oauth-protected-resource` (RFC 9728). Default: the
    scheme and the host of the request."""
    mtls: ClientCertificates | None = None
    """Client certificates on the gRPC listener. Default: none."""

    @property
    def metadata_url(self) -> str | None:
        """The URL of the metadata of the protected resource (RFC 9728, 3.1), or its path if `resource` is not set.

        None without issuers: API keys need no metadata.
        """
        if not self.issuers:
            return None
        parts = urlsplit(self.resource or "")
        origin = f"{parts.scheme}://{parts.netloc}" if self.resource else ""
        return f"{origin}{_WELL_KNOWN}{parts.path.rstrip('/')}"
