"""Who calls, and what the core needs of a store to keep API keys."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls: the account, the key's id, and the model ids that the key may use (empty: all)."""

    account: str
    key_id: str
    models: frozenset[str] = frozenset()

    def may_use(self, model: str) -> bool:
        """Tells whether the key is good for this model id."""
        return not self.models or model in self.models


class Authenticator(Protocol):
    """Tells who calls."""

    async def authenticate(self, authorization: str | None) -> Caller:
        """Reads an `authorization` value. Raises Unauthenticated, InvalidApiKey, PlanRequired, StoreUnavailable."""
        ...


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is stored: `digest` is the SHA-256 of the secret, times are Unix seconds."""

    id: str
    name: str
    account: str
    plan: str
    digest: bytes
    models: tuple[str, ...]
    created: int
    expires: int | None = None
    revoked: int | None = None


class KeyStore(Protocol):
    """Keeps API keys and the accounts they belong to. Raises `StoreUnavailable`."""

    async def find_key(self, digest: bytes) -> ApiKey | None:
        """Returns the key with this digest, whatever its state; `plan` is its account's."""
        ...

    async def add_key(self, key: ApiKey) -> ApiKey:
        """Stores a key, and returns it with its account's plan: a new account is made with the key's."""
        ...

    async def plans(self) -> dict[str, str]:
        """Returns the plan of every account, by the account's name."""
        ...

    async def set_plan(self, account: str, plan: str) -> bool:
        """Changes the plan of an account; False where there is no such account."""
        ...

    async def list_keys(self) -> list[ApiKey]:
        """Returns every key, the oldest first."""
        ...

    async def revoke_key(self, key_id: str, now: int) -> ApiKey | None:
        """Marks the key revoked (once: a second call keeps the first time). None where there is no such key."""
        ...
