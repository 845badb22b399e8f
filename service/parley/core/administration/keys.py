"""Creates, lists and changes API keys."""

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from parley.config import UNLIMITED
from parley.core.administration.audit import key_audit, new_key_audit
from parley.core.administration.rules import LimitChange, Rules, require_name, require_scopes, require_time
from parley.core.administration.secrets import digest, new_key_id, new_secret
from parley.core.errors import InvalidRequest, KeyNotFound, KeyRevoked, PlanConflict
from parley.core.ports import Account, ApiKey, KeyStore, Origin

KeyState = Literal["active", "expired", "revoked"]
DEFAULT_ACCOUNT = "default"
KEEP_SECONDS = 86_400
"""For how long the old secret of a rotated key stays valid by default."""
_MAX_KEEP_SECONDS = 366 * 86_400
_PAGE_SIZE = 1000


@dataclass(frozen=True, slots=True)
class KeySettings:
    """The settings of a new key.

    Attributes:
        name: A label for people.
        account: The account, which is created if it does not exist.
        plan: The plan of a new account; None for the default plan.
        models: The ids of the models that the key may use; empty for all.
        scopes: What the key may do; empty for everything.
        limits: The key's own limits by name.
        expires: When the key expires, in Unix seconds; None for never.
    """

    name: str
    account: str = DEFAULT_ACCOUNT
    plan: str | None = None
    models: Sequence[str] = ()
    scopes: Sequence[str] = ()
    limits: Mapping[str, float | str | None] | None = None
    expires: int | None = None


def key_state(key: ApiKey, now: float) -> KeyState:
    """Returns whether the key can be used at `now` (Unix seconds)."""
    if key.revoked is not None:
        return "revoked"
    return "expired" if key.expires is not None and key.expires <= now else "active"


class Keys:
    """Creates, lists and changes API keys. Every method raises StoreUnavailable if the store cannot be reached.

    Args:
        store: Holds the keys.
        rules: What a key may name.
        clock: Returns Unix seconds.
    """

    def __init__(self, store: KeyStore, rules: Rules, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._rules = rules
        self._clock = clock

    async def create(self, settings: KeySettings, origin: Origin) -> tuple[ApiKey, str]:
        """Stores a new key.

        Returns:
            The key and its secret, which is not stored and cannot be read again.

        Raises:
            InvalidRequest: A setting is not valid.
            PlanConflict: The plan is not that of the existing account.
        """
        now, secret = int(self._clock()), new_secret()
        plan = None if settings.plan is None else self._rules.require_plan(settings.plan)
        key = ApiKey(
            id=new_key_id(),
            name=require_name("name", settings.name),
            account=Account(require_name("account", settings.account), plan or self._rules.default_plan),
            digest=digest(secret),
            models=self._rules.require_models(settings.models),
            created=now,
            expires=require_time("expires", settings.expires),
            scopes=require_scopes(settings.scopes),
            limits=LimitChange(settings.limits or {}).apply(UNLIMITED, of_key=True),
        )
        await self._require_plan(key.account.name, plan)
        return await self._store.add_key(key, new_key_audit(origin, now)), secret

    async def get(self, key_id: str) -> ApiKey:
        """Returns a key. Raises KeyNotFound."""
        key = await self._store.get_key(key_id)
        if key is None:
            raise KeyNotFound(key_id)
        return key

    async def page(
        self, account: str | None, *, page_size: int, page_token: str | None
    ) -> tuple[list[ApiKey], str | None]:
        """Returns a page of keys, the oldest first, and the token of the next page. Raises InvalidRequest.

        Args:
            account: Lists the keys of this account only; None for all.
            page_size: The maximum number of keys.
            page_token: The token of the page; None for the first one.
        """
        return await self._store.list_keys(account, page_size=page_size, page_token=page_token)

    async def all(self, account: str | None = None) -> list[ApiKey]:
        """Returns all keys, the oldest first."""
        return [key async for page in self._pages(account) for key in page]

    async def update(self, key_id: str, changes: Mapping[str, Any], origin: Origin) -> ApiKey:
        """Changes fields of a key.

        Args:
            key_id: The key's id.
            changes: New values by field: `name`, `models`, `scopes`, `expires`, and `limits` as a `LimitChange`.
            origin: Where the change comes from.

        Raises:
            KeyNotFound: There is no such key.
            KeyRevoked: The key is revoked.
            InvalidRequest: A value is not valid.
        """
        checks: dict[str, Callable[[Any], Any]] = {
            "name": lambda value: require_name("name", value),
            "models": self._rules.require_models,
            "scopes": require_scopes,
            "expires": lambda value: require_time("expires", value),
        }
        values = {name: checks[name](value) for name, value in changes.items() if name != "limits"}
        limits: LimitChange = changes.get("limits", LimitChange())

        def change(key: ApiKey) -> ApiKey:
            if key.revoked is not None:
                raise KeyRevoked(key_id)
            return replace(key, **values, limits=limits.apply(key.limits, of_key=True))

        return await self._change(key_id, change, origin, "UpdateKey", int(self._clock()))

    async def rotate(self, key_id: str, keep_seconds: int, origin: Origin) -> tuple[ApiKey, str]:
        """Gives a key a new secret.

        Args:
            key_id: The key's id.
            keep_seconds: For how long the old secret stays valid.
            origin: Where the change comes from.

        Returns:
            The key and its new secret, which is not stored and cannot be read again.

        Raises:
            KeyNotFound: There is no such key.
            KeyRevoked: The key is revoked or expired.
            InvalidRequest: The old secret would stay valid for more than a year.
        """
        if not 0 <= keep_seconds <= _MAX_KEEP_SECONDS:
            raise InvalidRequest("`keep_seconds` must be at most a year", param="keep_seconds")
        now, secret = int(self._clock()), new_secret()

        def change(key: ApiKey) -> ApiKey:
            if (state := key_state(key, now)) != "active":
                raise KeyRevoked(key_id, state)
            return replace(key, digest=digest(secret), previous_digest=key.digest, previous_expires=now + keep_seconds)

        return await self._change(key_id, change, origin, "RotateKey", now), secret

    async def revoke(self, key_id: str, origin: Origin) -> ApiKey:
        """Revokes a key permanently; a revoked key keeps its first time of revocation. Raises KeyNotFound."""
        now = int(self._clock())

        def change(key: ApiKey) -> ApiKey:
            return key if key.revoked is not None else replace(key, revoked=now)

        return await self._change(key_id, change, origin, "RevokeKey", now)

    async def _change(
        self, key_id: str, change: Callable[[ApiKey], ApiKey], origin: Origin, method: str, now: int
    ) -> ApiKey:
        changed = await self._store.update_key(key_id, change, key_audit(origin, method, now))
        if changed is None:
            raise KeyNotFound(key_id)
        return changed

    async def _pages(self, account: str | None) -> AsyncIterator[list[ApiKey]]:
        token: str | None = None
        while True:
            page, token = await self.page(account, page_size=_PAGE_SIZE, page_token=token)
            yield page
            if token is None:
                return

    async def _require_plan(self, account: str, plan: str | None) -> None:
        """Raises PlanConflict if the account exists with another plan."""
        if plan is None:
            return
        known = await self._store.find_account(account)
        if known is not None and known.plan != plan:
            raise PlanConflict(account, known.plan, plan)
