"""Verifies the signatures of JSON Web Tokens of the configured issuers."""

import json
import time
import warnings
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError, SecurityWarning

from parley.auth.tokens.claims import Claims
from parley.auth.tokens.keys import IssuerKeys, PublicKey
from parley.config import Issuer
from parley.core.errors import InvalidToken, IssuerUnavailable
from parley.core.ports import Documents

MAX_TOKEN = 12 * 1024  # bytes; the edge allows as many for all headers together

_TYPES = frozenset({"jwt", "at+jwt"})
_UNREADABLE = "The access token is not a signed JSON Web Token (JWS Compact Serialization)"
_UNSUPPORTED = "The access token has a `crit` or `b64` header, which this API does not support"
_BAD_SIGNATURE = "The access token's signature is not valid"
_UNKNOWN_KEY = "The access token is signed with a key that its issuer does not publish"
_RETRY_AFTER = 5  # seconds


class _Registry(jws.JWSRegistry):
    """Limits of joserfc; the header may also hold certificates."""

    max_header_length = MAX_TOKEN


@dataclass(frozen=True, slots=True)
class Verified:
    """A token whose signature and claims are valid.

    Attributes:
        issuer: The configuration of its issuer.
        claims: Its claims.
        key: The key that its signature was verified with.
        keys: All keys of the issuer.
    """

    issuer: Issuer
    claims: Claims
    key: PublicKey
    keys: IssuerKeys

    def is_current(self) -> bool:
        """Returns whether the issuer still publishes the key."""
        return self.keys.has(self.key)


class Verifier:
    """Verifies the signatures of tokens of several issuers."""

    def __init__(self, issuers: Sequence[Issuer], documents: Documents, clock: Callable[[], float] = time.time) -> None:
        self._issuers = {
            issuer.issuer: (issuer, IssuerKeys(issuer.issuer, issuer.jwks_uri, documents, clock)) for issuer in issuers
        }

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keeps the keys of all issuers up to date."""
        for _, keys in self._issuers.values():
            keys.start()
        try:
            yield
        finally:
            for _, keys in self._issuers.values():
                await keys.stop()

    async def verify(self, token: str) -> Verified:
        """Verifies the signature of a token with a key of its issuer.

        Only the configuration and the issuer's metadata name keys: the headers `jwk`, `jku`, `x5u` and `x5c` of a token
        have no effect.

        Raises:
            InvalidToken: The token is malformed, of another issuer, or its signature is not valid.
            IssuerUnavailable: The token's key is unknown, and the issuer's keys cannot be read.
        """
        signed = _parse(token)
        header, claims = signed.headers(), _claims(signed.payload)
        _check_header(header)
        known = self._issuers.get(claims["iss"]) if isinstance(claims.get("iss"), str) else None
        if known is None:
            raise InvalidToken("The access token's issuer is not accepted by this API")
        issuer, keys = known
        if header["alg"] not in issuer.algorithms:
            raise InvalidToken("The access token's signature algorithm is not accepted by this API")
        key = _signer(signed, issuer, keys)
        if key is None and await keys.refresh():
            key = _signer(signed, issuer, keys)
        if key is None:
            raise _not_verified(keys, header.get("kid"))
        return Verified(issuer, claims, key, keys)


def _parse(token: str) -> jws.CompactSignature:
    if len(token) > MAX_TOKEN:
        raise InvalidToken(f"The access token is longer than {MAX_TOKEN // 1024} KiB")
    try:
        return jws.extract_compact(token.encode("ascii"), registry=_Registry())
    except (JoseError, ValueError, RecursionError):
        raise InvalidToken(_UNREADABLE) from None


def _claims(payload: bytes) -> Mapping[str, Any]:
    try:
        claims = json.loads(payload)
    except (ValueError, RecursionError):
        claims = None
    if not isinstance(claims, dict):
        raise InvalidToken(_UNREADABLE)
    return claims


def _check_header(header: Mapping[str, Any]) -> None:
    """Checks `crit` and `typ` (RFC 7515, 4.1; RFC 9068, 2.1; RFC 8725, 3.11)."""
    if not isinstance(header.get("alg"), str) or not isinstance(header.get("kid", ""), str):
        raise InvalidToken(_UNREADABLE)
    if "crit" in header or "b64" in header:
        raise InvalidToken(_UNSUPPORTED)
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in _TYPES:
        raise InvalidToken("The token is not an access token: its `typ` is neither `at+jwt` nor `JWT`")


def _signer(signed: jws.CompactSignature, issuer: Issuer, keys: IssuerKeys) -> PublicKey | None:
    """Returns the issuer's key that has made the signature."""
    candidates = keys.find(signed.headers().get("kid"))
    return next((key for key in candidates if _is_signed(signed, key, issuer.algorithms)), None)


def _is_signed(signed: jws.CompactSignature, key: PublicKey, algorithms: Sequence[str]) -> bool:
    """Returns whether the key fits the algorithm and has made the signature."""
    try:
        key.check_use("sig")
        key.check_alg(signed.headers()["alg"])
        registry = _Registry(algorithms=algorithms, strict_check_header=False)
        with warnings.catch_warnings(action="ignore", category=SecurityWarning):  # EdDSA is configured deliberately
            return jws.validate_compact(signed, key, registry=registry)
    except (JoseError, ValueError):
        return False


def _not_verified(keys: IssuerKeys, key_id: str | None) -> InvalidToken | IssuerUnavailable:
    """Returns the error of a token that no known key has signed. It may be of a new key while none can be read."""
    is_known = bool(keys.find(key_id))
    if keys.failure is not None and not (key_id and is_known):
        return IssuerUnavailable(_RETRY_AFTER, cause=keys.failure)
    return InvalidToken(_BAD_SIGNATURE if is_known else _UNKNOWN_KEY)
