"""API keys: `sk-` and 32 random bytes, kept as a SHA-256."""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from parley.core.errors import InvalidApiKey, PlanRequired, Unauthenticated
from parley.core.ports import ApiKey, Caller, KeyStore

_FRESH_SECONDS = 0.5
_MAX_CACHED = 10_000
_FIRST_PLAN = "pro"


@dataclass(frozen=True, slots=True)
class _CachedKey:
    """A key as it was read from the store at a time, and who calls with it."""

    key: ApiKey
    caller: Caller
    read: float


class ApiKeys:
    """Makes and checks API keys; implements `parley.core.ports.Authenticator`.

    What was read of a key holds for half a second, so that a revocation holds everywhere within one. Only keys that
    exist are remembered. `clock` gives Unix seconds.
    """

    def __init__(self, store: KeyStore, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._known: dict[bytes, _CachedKey] = {}

    async def authenticate(self, authorization: str | None) -> Caller:
        """Reads `Bearer sk-…`. Raises Unauthenticated, InvalidApiKey, PlanRequired, StoreUnavailable."""
        digest = _digest(_secret(authorization))
        now = self._clock()
        known = self._known.get(digest)
        # A clock that was set back must not keep a revoked key alive.
        if known is None or not 0 <= now - known.read < _FRESH_SECONDS:
            known = await self._look_up(digest, now)
        key = known.key
        if key.revoked is not None or (key.expires is not None and key.expires <= now):
            raise InvalidApiKey
        if key.plan == "free":
            raise PlanRequired
        return known.caller

    async def create(
        self, name: str, account: str, plan: str | None = None, models: Sequence[str] = (), expires: int | None = None
    ) -> tuple[ApiKey, str]:
        """Stores a new key, and returns it with its secret, which nothing can tell again. Raises StoreUnavailable.

        `plan`, `free` or `pro`, is that of a new account; without it a new account is `pro`. `models` are the model
        ids that the key is good for, none for all; `expires` is in Unix seconds.
        """
        secret = f"sk-{secrets.token_urlsafe(32)}"
        key = ApiKey(
            id=f"key_{secrets.token_hex(6)}",
            name=name,
            account=account,
            plan=plan or _FIRST_PLAN,
            digest=_digest(secret),
            models=tuple(models),
            created=int(self._clock()),
            expires=expires,
        )
        return await self._store.add_key(key), secret

    async def list(self) -> Sequence[ApiKey]:
        """Returns every key, the oldest first. Raises StoreUnavailable."""
        return await self._store.list_keys()

    async def revoke(self, key_id: str) -> ApiKey | None:
        """Makes a key invalid for good, and returns it; None where there is no such key. Raises StoreUnavailable."""
        key = await self._store.revoke_key(key_id, int(self._clock()))
        if key is not None:
            self._known.pop(key.digest, None)
        return key

    async def _look_up(self, digest: bytes, now: float) -> _CachedKey:
        """Reads a key and remembers it. `now` is from before the read: what is read may be older than its end."""
        self._known.pop(digest, None)
        key = await self._store.find_key(digest)
        if key is None or not hmac.compare_digest(key.digest, digest):
            raise InvalidApiKey
        known = _CachedKey(key, Caller(key.account, key.id, frozenset(key.models)), now)
        if len(self._known) >= _MAX_CACHED:
            del self._known[next(iter(self._known))]
        self._known[digest] = known
        return known


def _secret(authorization: str | None) -> str:
    """Takes the secret out of `Bearer sk-…`. Raises Unauthenticated, InvalidApiKey."""
    if not authorization:
        raise Unauthenticated
    scheme, _, secret = authorization.partition(" ")
    secret = secret.strip()
    if scheme.lower() != "bearer" or not secret.startswith("sk-"):
        raise InvalidApiKey
    return secret


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode(errors="replace")).digest()
