"""The identity of a caller, and the interface of a store of API keys."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller.

    Attributes:
        account: The account's name.
        key_id: The id of the API key.
        models: The ids of the models that the key may use; empty for all.
    """

    account: str
    key_id: str
    models: frozenset[str] = frozenset()

    def may_use(self, model: str) -> bool:
        """Returns whether the key permits this model id."""
        return not self.models or model in self.models


class Authenticator(Protocol):
    """Authenticates callers."""

    async def authenticate(self, authorization: str | None) -> Caller:
        """Authenticates an `authorization` value.

        Raises:
            Unauthenticated: The value is missing.
            InvalidApiKey: The key is unknown, revoked or expired.
            PlanRequired: The account's plan excludes the API.
            StoreUnavailable: The store cannot be reached.
        """
        ...


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key as stored.

    Attributes:
        id: The key's id, which is not secret.
        name: A label for people.
        account: The name of the account that owns the key.
        plan: The plan of that account.
        digest: The SHA-256 of the secret.
        models: The ids of the models that the key may use; empty for all.
        created: Unix seconds.
        expires: Unix seconds; None for a key without an expiry.
        revoked: Unix seconds; None for a key that is not revoked.
    """

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
    """Stores API keys and their accounts. Every method raises StoreUnavailable if the store cannot be reached."""

    async def find_key(self, digest: bytes) -> ApiKey | None:
        """Returns the key with this digest, revoked and expired keys included."""
        ...

    async def add_key(self, key: ApiKey) -> ApiKey:
        """Stores a key and returns it with the plan of its account.

        Creates the account with the key's plan if the account does not exist.
        """
        ...

    async def plans(self) -> dict[str, str]:
        """Returns the plans of all accounts, keyed by account name."""
        ...

    async def set_plan(self, account: str, plan: str) -> bool:
        """Sets the plan of an account. Returns False if the account does not exist."""
        ...

    async def list_keys(self) -> list[ApiKey]:
        """Returns all keys, oldest first."""
        ...

    async def revoke_key(self, key_id: str, now: int) -> ApiKey | None:
        """Marks the key as revoked at `now` (Unix seconds); a revoked key keeps its first time of revocation.

        Returns None if the key does not exist.
        """
        ...
