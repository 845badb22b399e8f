"""The identity of a caller, and the interface of a store of accounts and API keys."""

from dataclasses import dataclass
from typing import Literal, Protocol

from parley.config import UNLIMITED, Limits

Scope = Literal["chat", "sessions:read", "sessions:write", "models"]
"""What a key may do: complete chats, read sessions, change sessions, list models."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a call presents to be authenticated.

    Attributes:
        authorization: The value of the `authorization` header; None without one.
        address: The client's IP address; empty if it is not known.
        certificate_name: The name in the client's certificate, which the edge has verified; empty without one.
    """

    authorization: str | None
    address: str = ""
    certificate_name: str = ""


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller.

    Attributes:
        account: The account's name.
        key_id: The id of the API key.
        models: The ids of the models that the key may use; empty for all.
        scopes: What the key may do; empty for everything.
        key_limits: The limits of the key.
        account_limits: The limits of the account.
    """

    account: str
    key_id: str
    models: frozenset[str] = frozenset()
    scopes: frozenset[Scope] = frozenset()
    key_limits: Limits = UNLIMITED
    account_limits: Limits = UNLIMITED

    def may_use(self, model: str) -> bool:
        """Returns whether the key permits this model id."""
        return not self.models or model in self.models

    def has_scope(self, scope: Scope) -> bool:
        """Returns whether the key permits this scope."""
        return not self.scopes or scope in self.scopes


class Authenticator(Protocol):
    """Authenticates callers."""

    async def authenticate(self, credentials: Credentials) -> Caller:
        """Authenticates the credentials of a call.

        Raises:
            Unauthenticated: There are no credentials.
            InvalidApiKey: The key is unknown, revoked or expired.
            PlanRequired: The account's plan excludes the API.
            AccountSuspended: The account is suspended.
            StoreUnavailable: The store cannot be reached.
        """
        ...


@dataclass(frozen=True, slots=True)
class Account:
    """An account as stored.

    Attributes:
        name: The account's name.
        plan: The name of its plan.
        limits: The account's own limits, which replace those of its plan.
        suspended: When it was suspended, in Unix seconds; None for an account that is not suspended.
    """

    name: str
    plan: str
    limits: Limits = UNLIMITED
    suspended: int | None = None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key as stored.

    Attributes:
        id: The key's id, which is not secret.
        name: A label for people.
        account: The account that owns the key.
        digest: The SHA-256 of the secret.
        models: The ids of the models that the key may use; empty for all.
        created: Unix seconds.
        expires: Unix seconds; None for a key without an expiry.
        revoked: Unix seconds; None for a key that is not revoked.
        scopes: What the key may do; empty for everything.
        limits: The key's own limits, which replace `limits.key` of the configuration.
        previous_digest: The SHA-256 of the secret before the latest rotation; None for a key without one.
        previous_expires: When the previous secret expires, in Unix seconds.
    """

    id: str
    name: str
    account: Account
    digest: bytes
    models: tuple[str, ...]
    created: int
    expires: int | None = None
    revoked: int | None = None
    scopes: tuple[Scope, ...] = ()
    limits: Limits = UNLIMITED
    previous_digest: bytes | None = None
    previous_expires: int | None = None


class AccountStore(Protocol):
    """Stores accounts. Every method raises StoreUnavailable if the store cannot be reached."""

    async def find_account(self, name: str) -> Account | None:
        """Returns the account with this name."""
        ...

    async def add_account(self, account: Account) -> Account:
        """Stores an account and returns it. If it exists, returns it as stored."""
        ...


class KeyStore(Protocol):
    """Stores API keys and their accounts. Every method raises StoreUnavailable if the store cannot be reached."""

    async def find_key(self, digest: bytes) -> ApiKey | None:
        """Returns the key with this digest or previous digest, revoked and expired keys included."""
        ...

    async def find_account(self, name: str) -> Account | None:
        """Returns the account with this name."""
        ...

    async def add_key(self, key: ApiKey) -> ApiKey:
        """Stores a key and returns it with its account as stored.

        Creates the account with the plan of `key.account` if the account does not exist.
        """
        ...

    async def list_accounts(self) -> list[Account]:
        """Returns all accounts in the order of their names."""
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
