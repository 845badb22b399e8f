"""Authentication by API keys."""

import hmac
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from parley.auth.callers import Callers
from parley.auth.recent import RecentCache
from parley.core.administration.secrets import PREFIX
from parley.core.administration.secrets import digest as digest_of
from parley.core.errors import AccountSuspended, InvalidApiKey, PlanRequired, Unauthenticated
from parley.core.ports import ApiKey, Caller, Credentials, KeyReader


@dataclass(frozen=True, slots=True)
class _CachedKey:
    """A key and its caller, as read from the store.

    Attributes:
        key: The key.
        caller: Its caller; None if the account has no access.
        valid_until: When its secret ends to be valid, see `valid_until`.
    """

    key: ApiKey
    caller: Caller | None
    valid_until: float


class ApiKeys:
    """Checks API keys; implements `parley.core.ports.Authenticator`.

    A key is cached for half a second, so a revocation takes effect in all workers within one second. So is the fact
    that a key does not exist.

    Args:
        store: Holds the keys.
        callers: Applies plans and limits.
        clock: Returns Unix seconds.
    """

    def __init__(
        self, store: KeyReader, callers: Callers | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._callers = callers or Callers()
        self._clock = clock
        self._known = RecentCache[bytes, _CachedKey]()
        self._unknown = RecentCache[bytes, bool]()  # the store had no such key

    async def authenticate(self, credentials: Credentials) -> Caller:
        """Returns the caller of an `Authorization` header, `Bearer sk-…`.

        Raises:
            Unauthenticated: There is no header.
            InvalidApiKey: The key is malformed, unknown, expired or revoked.
            PlanRequired: The account's plan has no access to the API.
            AccountSuspended: The account is suspended.
            StoreUnavailable: The store cannot be reached.
        """
        digest = digest_of(secret_of(credentials.authorization))
        now = self._clock()
        known = self._known.get(digest, now) or await self._look_up(digest, now)
        if now >= known.valid_until:
            raise InvalidApiKey("expired" if known.key.revoked is None else "revoked")
        return known.caller or self._caller(known.key)

    async def _look_up(self, digest: bytes, now: float) -> _CachedKey:
        """Reads a key and caches it. `now` is taken before the read, so that the key is never cached for too long."""
        self._known.pop(digest)
        if self._unknown.get(digest, now):
            raise InvalidApiKey
        key = await self._store.find_key(digest)
        if key is None:
            self._unknown.put(digest, True, now)
            raise InvalidApiKey
        self._unknown.pop(digest)
        known = _CachedKey(key, self._caller_with_access(key), valid_until(key, digest))
        self._known.put(digest, known, now)
        return known

    def _caller_with_access(self, key: ApiKey) -> Caller | None:
        with suppress(AccountSuspended, PlanRequired):
            return self._caller(key)
        return None

    def _caller(self, key: ApiKey) -> Caller:
        """Returns the caller of a key. Raises AccountSuspended, PlanRequired."""
        return self._callers.caller(key.account, key.id, key.models, key.scopes, key.limits)


def valid_until(key: ApiKey, digest: bytes) -> float:
    """Returns the Unix time at which the secret with this digest ends to be valid for the key.

    Returns:
        `math.inf` for a secret without an end, and `-math.inf` for one that is revoked or not the key's.
    """
    end = math.inf if key.expires is None else float(key.expires)
    if key.revoked is not None:
        return -math.inf
    if hmac.compare_digest(key.digest, digest):
        return end
    if key.previous_digest is None or key.previous_expires is None:
        return -math.inf
    return min(end, key.previous_expires) if hmac.compare_digest(key.previous_digest, digest) else -math.inf


def secret_of(authorization: str | None) -> str:
    """Returns the secret of `Bearer sk-…`. Raises Unauthenticated, InvalidApiKey."""
    if not authorization:
        raise Unauthenticated
    scheme, _, secret = authorization.partition(" ")
    secret = secret.strip()
    if scheme.lower() != "bearer" or not secret.startswith(PREFIX):
        raise InvalidApiKey("malformed")
    return secret
