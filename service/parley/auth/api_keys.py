"""API keys: `sk-` and 32 random bytes, stored as their SHA-256."""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from parley.auth.callers import Callers
from parley.core.errors import AccountSuspended, InvalidApiKey, PlanRequired, Unauthenticated
from parley.core.ports import Account, ApiKey, Caller, Credentials, KeyStore

_CACHE_SECONDS = 0.5  # less than the second within which a revocation takes effect
_MAX_CACHED = 10_000  # keys


@dataclass(frozen=True, slots=True)
class _CachedKey:
    """A key and its caller, as read from the store at the Unix time `read`; no caller if the account has no access."""

    key: ApiKey
    caller: Caller | None
    read: float


class ApiKeys:
    """Creates and checks API keys; implements `parley.core.ports.Authenticator`.

    A key is cached for half a second, so a revocation takes effect in all workers within one second. Only existing keys
    are cached.

    Args:
        store: Holds the keys.
        callers: Applies plans and limits.
        clock: Returns Unix seconds.
    """

    def __init__(
        self, store: KeyStore, callers: Callers | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._callers = callers or Callers()
        self._clock = clock
        self._known: dict[bytes, _CachedKey] = {}

    async def authenticate(self, credentials: Credentials) -> Caller:
        """Returns the caller of an `Authorization` header, `Bearer sk-…`.

        Raises:
            Unauthenticated: There is no header.
            InvalidApiKey: The key is malformed, unknown, expired or revoked.
            PlanRequired: The account's plan has no access to the API.
            AccountSuspended: The account is suspended.
            StoreUnavailable: The store cannot be reached.
        """
        digest = _digest(_secret(credentials.authorization))
        now = self._clock()
        known = self._known.get(digest)
        # The lower bound: a clock that is set back must not keep a revoked key valid.
        if known is None or not 0 <= now - known.read < _CACHE_SECONDS:
            known = await self._look_up(digest, now)
        if not _is_valid(known.key, digest, now):
            raise InvalidApiKey
        return known.caller or self._caller(known.key)

    async def create(
        self, name: str, account: str, plan: str | None = None, models: Sequence[str] = (), expires: int | None = None
    ) -> tuple[ApiKey, str]:
        """Stores a new key.

        Args:
            name: A label for people.
            account: The account of the key; it is created if it does not exist.
            plan: The plan of a new account; None for the first plan with access.
            models: The ids of the models that the key may use; empty for all.
            expires: When the key expires, in Unix seconds; None for never.

        Returns:
            The key and its secret, which is not stored and cannot be read again.

        Raises:
            StoreUnavailable: The store cannot be reached.
        """
        secret = f"sk-{secrets.token_urlsafe(32)}"
        key = ApiKey(
            id=f"key_{secrets.token_hex(6)}",
            name=name,
            account=Account(account, plan or self._callers.first_plan),
            digest=_digest(secret),
            models=tuple(models),
            created=int(self._clock()),
            expires=expires,
        )
        return await self._store.add_key(key), secret

    async def list(self) -> Sequence[ApiKey]:
        """Returns all keys, the oldest first. Raises StoreUnavailable."""
        return await self._store.list_keys()

    async def revoke(self, key_id: str) -> ApiKey | None:
        """Revokes a key and returns it; None if it does not exist. Raises StoreUnavailable."""
        key = await self._store.revoke_key(key_id, int(self._clock()))
        if key is not None:
            self._known.pop(key.digest, None)
            self._known.pop(key.previous_digest or b"", None)
        return key

    async def _look_up(self, digest: bytes, now: float) -> _CachedKey:
        """Reads a key and caches it. `now` is taken before the read, so that the key is never cached for too long."""
        self._known.pop(digest, None)
        key = await self._store.find_key(digest)
        if key is None:
            raise InvalidApiKey
        known = _CachedKey(key, self._caller_with_access(key), now)
        if len(self._known) >= _MAX_CACHED:
            del self._known[next(iter(self._known))]
        self._known[digest] = known
        return known

    def _caller_with_access(self, key: ApiKey) -> Caller | None:
        with suppress(AccountSuspended, PlanRequired):
            return self._caller(key)
        return None

    def _caller(self, key: ApiKey) -> Caller:
        """Returns the caller of a key. Raises AccountSuspended, PlanRequired."""
        return self._callers.caller(key.account, key.id, key.models, key.scopes, key.limits)


def _is_valid(key: ApiKey, digest: bytes, now: float) -> bool:
    """Returns whether the key is neither revoked nor expired, and the digest is that of a secret that is valid."""
    if key.revoked is not None or (key.expires is not None and key.expires <= now):
        return False
    if hmac.compare_digest(key.digest, digest):
        return True
    if key.previous_digest is None or key.previous_expires is None or key.previous_expires <= now:
        return False
    return hmac.compare_digest(key.previous_digest, digest)


def _secret(authorization: str | None) -> str:
    """Returns the secret of `Bearer sk-…`. Raises Unauthenticated, InvalidApiKey."""
    if not authorization:
        raise Unauthenticated
    scheme, _, secret = authorization.partition(" ")
    secret = secret.strip()
    if scheme.lower() != "bearer" or not secret.startswith("sk-"):
        raise InvalidApiKey
    return secret


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode(errors="replace")).digest()
