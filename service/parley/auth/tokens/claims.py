"""The claims of a verified token: whether it is valid here and now, and what it grants."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from parley.config import UNLIMITED, Issuer, Limits
from parley.config.validation import ValidationError, validated
from parley.core.errors import InsufficientScope, InvalidToken
from parley.core.ports import Scope

Claims = Mapping[str, Any]

_PARTIES = ("azp", "client_id", "appid", "cid")  # OpenID Connect; RFC 9068; Entra v1; Okta
_MAX_TIME = 1e12  # seconds; excludes NaN and numbers that no float can hold
_MAX_NAME = 256  # characters of an account's name


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token grants.

    Attributes:
        account: The name of the account.
        subject: The issuer and the subject, the id of the caller in limits and logs.
        plan: The plan in the token; None to use the stored one.
        default_plan: The plan of a new account; None for the first plan with access.
        limits: The limits of the account in the token.
        models: The ids of the models that the token may use; empty for all.
        scopes: The scopes of Parley; empty for all.
        expires: When the token is no longer accepted, in Unix seconds: `exp` and the tolerance for the clocks.
    """

    account: str
    subject: str
    plan: str | None
    default_plan: str | None
    limits: Limits
    models: frozenset[str]
    scopes: frozenset[Scope]
    expires: float


def grant(claims: Claims, issuer: Issuer, now: float) -> Grant:
    """Validates the claims of a token whose signature is valid.

    Raises:
        InvalidToken: A claim is missing, of the wrong type, or does not fit this service or this time.
        InsufficientScope: The token lacks a required scope.
    """
    _check_audience(claims, issuer.audience)
    expires = _check_times(claims, issuer.clock_skew, now)
    _check_kind(claims, issuer)
    _check_party(claims, issuer.authorized_parties)
    scopes = _token_scopes(claims, issuer)
    account = _account(claims, issuer)
    subject = claims.get("sub")
    return Grant(
        account=account,
        subject=f"{issuer.issuer}#{subject}" if isinstance(subject, str) and subject else account,
        plan=_plan(claims, issuer.claims.plan),
        default_plan=issuer.plan,
        limits=_limits(claims, issuer.claims.limits),
        models=_models(claims, issuer.claims.models),
        scopes=_granted_scopes(scopes, issuer),
        expires=expires,
    )


def _check_audience(claims: Claims, accepted: Sequence[str]) -> None:
    audience = claims.get("aud")
    found = [audience] if isinstance(audience, str) else audience
    if not isinstance(found, list) or not any(value in found for value in accepted):
        raise InvalidToken("The access token is for another audience; request one for this API")


def _check_times(claims: Claims, skew: float, now: float) -> float:
    """Checks `exp`, `nbf` and `iat` (RFC 7519, 4.1). Returns when the token is no longer accepted."""
    expires = _time(claims, "exp")
    if expires is None:
        raise InvalidToken("The access token has no `exp`; this API requires tokens that expire")
    if now >= expires + skew:
        raise InvalidToken("The access token has expired; request a new one")
    if any((start := _time(claims, name)) is not None and start > now + skew for name in ("nbf", "iat")):
        raise InvalidToken("The access token is not valid yet; check the clocks of the issuer and of this service")
    return expires + skew


def _time(claims: Claims, name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_MAX_TIME < value < _MAX_TIME:
        raise InvalidToken(f"The access token's `{name}` is not a time in seconds")
    return value


def _check_kind(claims: Claims, issuer: Issuer) -> None:
    if not issuer.id_tokens and _is_id_token(claims):
        raise InvalidToken("This is an ID token; send the access token")


def _is_id_token(claims: Claims) -> bool:
    """Recognizes ID tokens (OpenID Connect Core, 3.1.3.6). `typ` is a claim of Keycloak."""
    if "typ" in claims:
        return bool(claims["typ"] == "ID")
    has_scopes = "scope" in claims or "scp" in claims
    return "at_hash" in claims or "c_hash" in claims or ("nonce" in claims and not has_scopes)


def _check_party(claims: Claims, accepted: Sequence[str]) -> None:
    if not accepted:
        return
    named = [claims[name] for name in _PARTIES if name in claims]
    if not named or any(party not in accepted for party in named):
        raise InvalidToken("The access token was issued to a client that may not use this API")


def _token_scopes(claims: Claims, issuer: Issuer) -> frozenset[str]:
    """Returns the token's scopes. Raises InsufficientScope."""
    path = issuer.claims.scope
    value = claims.get("scope", claims.get("scp")) if path is None else resolve(claims, path)
    scopes = frozenset(_words(value, path or "scope"))
    missing = [scope for scope in issuer.scopes if scope not in scopes]
    if missing:
        raise InsufficientScope(issuer.scopes, f"The access token lacks the scope {', '.join(missing)}")
    return scopes


def _granted_scopes(scopes: frozenset[str], issuer: Issuer) -> frozenset[Scope]:
    """Returns the scopes of Parley that the token's scopes grant; empty for all. Raises InsufficientScope."""
    if not issuer.grants:
        return frozenset()
    granted = frozenset(each for scope, given in issuer.grants.items() if scope in scopes for each in given)
    if not granted:
        known = " or ".join(issuer.grants)
        raise InsufficientScope(
            list(issuer.grants), f"The access token grants nothing here; it needs the scope {known}"
        )
    return granted


def _account(claims: Claims, issuer: Issuer) -> str:
    value = resolve(claims, issuer.claims.account)
    name = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(name, str) or not name.strip():
        raise InvalidToken(f"The access token has no account: its claim `{issuer.claims.account}` is missing")
    account = issuer.prefix + name
    if len(account) > _MAX_NAME or not account.isprintable():
        raise InvalidToken(f"The access token's claim `{issuer.claims.account}` is too long or not printable")
    return account


def _plan(claims: Claims, path: str | None) -> str | None:
    value = resolve(claims, path) if path else None
    if value is not None and not isinstance(value, str):
        raise InvalidToken(f"The access token's claim `{path}` must be the name of a plan")
    return value


def _models(claims: Claims, path: str | None) -> frozenset[str]:
    value = resolve(claims, path) if path else None
    if value is None:
        return frozenset()
    models = frozenset(_words(value, path or ""))
    if not models:
        raise InvalidToken(f"The access token may use no model: its claim `{path}` is empty")
    return models


def _limits(claims: Claims, path: str | None) -> Limits:
    value = resolve(claims, path) if path else None
    if value is None:
        return UNLIMITED
    try:
        limits: Limits = validated(Limits, value)
    except ValidationError as error:
        text = f"The access token's claim `{path}` has no valid limits"
        raise InvalidToken(text, cause=str(error.errors(include_input=False, include_url=False))) from None
    return limits


def resolve(claims: Claims, path: str) -> Any:
    """Returns the claim of this name, else the value at a path with dots such as `realm_access.plan`, else None."""
    if path in claims:
        return claims[path]
    value: Any = claims
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _words(value: Any, name: str) -> Iterable[str]:
    """Returns a claim's values: a list of texts, or one text with spaces between them."""
    if value is None:
        return ()
    words = value.split() if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise InvalidToken(f"The access token's claim `{name}` must be text or a list of texts")
    return words
