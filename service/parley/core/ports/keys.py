"""The identity of a caller, and the interface of a store of accounts and API keys."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypeAlias

from parley.config import UNLIMITED, Limits
from parley.core.errors import ParleyError
from parley.core.ports.audit import Audit, AuditEvent

Scope = Literal["chat", "sessions:read", "sessions:write", "models"]
"""What a key may do: complete chats, read sessions, change sessions, list models."""


class Credentials(NamedTuple):
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
        models: The ids of the models that the key may use; empty for all. One that ends with `*` permits all ids that
            begin with the rest.
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
        models = self.models
        return not models or model in models or any(one[-1:] == "*" and model.startswith(one[:-1]) for one in models)

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


class AccessChecker(Protocol):
    """Finds running calls whose caller has lost access since they began."""

    async def find_revoked(self, running: Mapping[Credentials, Caller]) -> dict[Credentials, ParleyError]:
        """Returns why a new call would be refused, by the credentials of running calls for which it would be.

        Raises:
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


NewKeyAudit: TypeAlias = Callable[[ApiKey, bool], AuditEvent]
"""Returns the event of a new key, given whether its account is new, too."""


class AccountStore(Protocol):
    """Stores accounts. Every method raises StoreUnavailable if the store cannot be reached."""

    async def find_account(self, name: str) -> Account | None:
        """Returns the account with this name."""
        ...

    async def add_account(self, account: Account, audit: Audit[Account]) -> tuple[Account, bool]:
        """Stores an account, and adds the event that `audit` returns to the audit log in the same transaction.

        If it exists, changes nothing.

        Returns:
            The account as stored, and whether it is new.
        """
        ...


class KeyReader(Protocol):
    """Finds API keys and accounts. Every method raises StoreUnavailable if the store cannot be reached."""

    async def find_key(self, digest: bytes) -> ApiKey | None:
        """Returns the key with this digest or previous digest, revoked and expired keys included."""
        ...

    async def find_account(self, name: str) -> Account | None:
        """Returns the account with this name."""
        ...

    async def find_keys(self, digests: Collection[bytes]) -> list[ApiKey]:
        """Returns the keys with these digests or previous digests, in one query."""
        ...

    async def find_accounts(self, names: Collection[str]) -> list[Account]:
        """Returns the accounts with these names, in one query."""
        ...


class KeyStore(KeyReader, AccountStore, Protocol):
    """Stores API keys and their accounts. Every method raises StoreUnavailable if the store cannot be reached."""

    async def get_key(self, key_id: str) -> ApiKey | None:
        """Returns the key with this id."""
        ...

    async def list_keys(
        self, account: str | None = None, *, page_size: int, page_token: str | None = None
    ) -> tuple[list[ApiKey], str | None]:
        """Returns a page of keys, the oldest first, of one account or of all, and the token of the next page.

        Raises:
            InvalidRequest: The token is invalid.
        """
        ...

    async def list_accounts(self, *, page_size: int, page_token: str | None = None) -> tuple[list[Account], str | None]:
        """Returns a page of accounts in the order of their names, and the token of the next page.

        Raises:
            InvalidRequest: The token is invalid.
        """
        ...

    async def add_key(self, key: ApiKey, audit: NewKeyAudit) -> ApiKey:
        """Stores a key and returns it with its account as stored.

        Creates the account with the plan of `key.account` if the account does not exist. This and the following methods
        add the event that `audit` returns to the audit log, in the same transaction. They may call `audit` repeatedly.
        """
        ...

    async def update_key(self, key_id: str, change: Callable[[ApiKey], ApiKey], audit: Audit[ApiKey]) -> ApiKey | None:
        """Replaces a key by the result of `change`, which may raise to change nothing.

        Args:
            key_id: The key's id.
            change: Returns the new key; its id, account and time of creation are not stored. It may be called
                repeatedly.
            audit: Describes the change.

        Returns:
            The new key; None if it does not exist.
        """
        ...

    async def update_account(
        self, name: str, change: Callable[[Account], Account], audit: Audit[Account]
    ) -> Account | None:
        """Replaces an account by the result of `change`; see `update_key`."""
        ...
