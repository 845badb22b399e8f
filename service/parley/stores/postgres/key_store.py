"""The part of the store that holds keys, accounts and the audit log."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection
from typing import TypeVar

from parley.core.ports import Account, ApiKey, Audit, AuditEvent, AuditFilter, NewKeyAudit
from parley.stores import paging
from parley.stores.postgres import audit as events
from parley.stores.postgres import keys
from parley.stores.postgres.database import Connection
from parley.stores.postgres.pool import Pool

T = TypeVar("T")
_NUL = "\0"  # PostgreSQL cannot store it, so that nothing has it in its name


class PostgresKeyStore(ABC):
    """Implements `parley.core.ports.KeyStore` and `AuditStore`. Every method also raises StoreUnavailable."""

    _pool: Pool

    @abstractmethod
    async def _read(self, work: Callable[[Connection], Awaitable[T]], *, is_lookup: bool = False) -> T: ...

    async def find_key(self, digest: bytes) -> ApiKey | None:
        """Reads the key with this digest."""
        return await self._read(lambda db: keys.find_key(db, digest), is_lookup=True)

    async def find_keys(self, digests: Collection[bytes]) -> list[ApiKey]:
        """Reads the keys with these digests."""
        return await self._read(lambda db: keys.find_keys(db, digests))

    async def find_account(self, name: str) -> Account | None:
        """Reads the account with this name."""
        return None if _NUL in name else await self._read(lambda db: keys.find_account(db, name))

    async def find_accounts(self, names: Collection[str]) -> list[Account]:
        """Reads the accounts with these names."""
        return await self._read(lambda db: keys.find_accounts(db, names))

    async def get_key(self, key_id: str) -> ApiKey | None:
        """Reads the key with this id."""
        return None if _NUL in key_id else await self._read(lambda db: keys.get_key(db, key_id))

    async def list_keys(
        self, account: str | None = None, *, page_size: int, page_token: str | None = None
    ) -> tuple[list[ApiKey], str | None]:
        """Reads a page of keys, oldest first. Raises InvalidRequest."""
        after = paging.decode(page_token, int, int) if page_token else []
        if account is not None and _NUL in account:
            return [], None
        return await self._read(lambda db: keys.list_keys(db, account, page_size, after))

    async def list_accounts(self, *, page_size: int, page_token: str | None = None) -> tuple[list[Account], str | None]:
        """Reads a page of accounts. Raises InvalidRequest."""
        after = paging.decode(page_token, str) if page_token else []
        return await self._read(lambda db: keys.list_accounts(db, page_size, after))

    async def add_key(self, key: ApiKey, audit: NewKeyAudit) -> ApiKey:
        """Adds a key, and its account if it does not exist."""
        return await self._pool.run(lambda db: keys.add_key(db, key, audit))

    async def update_key(self, key_id: str, change: Callable[[ApiKey], ApiKey], audit: Audit[ApiKey]) -> ApiKey | None:
        """Replaces a key. Raises what `change` raises."""
        if _NUL in key_id:
            return None
        return await self._pool.run(lambda db: keys.update_key(db, key_id, change, audit))

    async def add_account(self, account: Account, audit: Audit[Account]) -> tuple[Account, bool]:
        """Adds an account unless it exists."""
        return await self._pool.run(lambda db: keys.add_account(db, account, audit))

    async def update_account(
        self, name: str, change: Callable[[Account], Account], audit: Audit[Account]
    ) -> Account | None:
        """Replaces an account. Raises what `change` raises."""
        if _NUL in name:
            return None
        return await self._pool.run(lambda db: keys.update_account(db, name, change, audit))

    async def add_audit_event(self, event: AuditEvent) -> None:
        """Adds an event."""
        await self._pool.run(lambda db: events.add_event(db, event))

    async def list_audit_events(
        self, chosen: AuditFilter, *, page_size: int, page_token: str | None
    ) -> tuple[list[AuditEvent], str | None]:
        """Reads a page of events, latest first. Raises InvalidRequest."""
        after = paging.decode(page_token, int) if page_token else []
        if chosen.subject is not None and _NUL in chosen.subject:
            return [], None
        return await self._read(lambda db: events.list_events(db, chosen, page_size, after))
