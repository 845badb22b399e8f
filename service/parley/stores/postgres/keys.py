"""API keys and accounts in SQL."""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import asyncpg

from parley.core.ports import Account, ApiKey, Audit, NewKeyAudit
from parley.stores import identities, paging
from parley.stores.postgres.audit import add_event
from parley.stores.postgres.database import Connection

_COLUMNS = f"{identities.KEY_COLUMNS}, {identities.ACCOUNT_COLUMNS}"
_KEYS = f"SELECT {_COLUMNS} FROM parley.api_keys JOIN parley.accounts ON accounts.name = account"
# Two branches, each with its own index: one condition with OR may be planned as a scan of the table.
_BY_DIGEST = f"{_KEYS} WHERE digest = $1 UNION ALL {_KEYS} WHERE previous_digest = $1 LIMIT 1"
_BY_DIGESTS = f"{_KEYS} WHERE digest = ANY($1) UNION ALL {_KEYS} WHERE previous_digest = ANY($1)"
_BY_ID = f"{_KEYS} WHERE id = $1"
_PAGE = f"""
SELECT {_COLUMNS}, place FROM parley.api_keys JOIN parley.accounts ON accounts.name = account
WHERE (created, place) > ($1, $2) AND ($3::text IS NULL OR account = $3) ORDER BY created, place LIMIT $4
"""
_ADD_ACCOUNT = """
INSERT INTO parley.accounts (name, plan, limits, suspended) VALUES ($1, $2, $3, $4)
ON CONFLICT (name) DO NOTHING RETURNING name
"""
_ADD = """
INSERT INTO parley.api_keys (
  id, digest, name, account, models, created, expires, revoked, scopes, limits, previous_digest, previous_expires
) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
"""
_UPDATE = """
UPDATE parley.api_keys SET
  digest = $2, name = $3, models = $4, expires = $5, revoked = $6, scopes = $7, limits = $8,
  previous_digest = $9, previous_expires = $10
WHERE id = $1
"""
_ACCOUNT = f"SELECT {identities.ACCOUNT_COLUMNS} FROM parley.accounts WHERE name = $1"
_ACCOUNTS = f"SELECT {identities.ACCOUNT_COLUMNS} FROM parley.accounts WHERE name > $1 ORDER BY name LIMIT $2"
_NAMED_ACCOUNTS = f"SELECT {identities.ACCOUNT_COLUMNS} FROM parley.accounts WHERE name = ANY($1)"
_UPDATE_ACCOUNT = "UPDATE parley.accounts SET plan = $2, limits = $3, suspended = $4 WHERE name = $1"


async def find_key(db: Connection, digest: bytes) -> ApiKey | None:
    """Reads the key with this digest or previous digest."""
    return _key(await db.fetchrow(_BY_DIGEST, digest))


async def find_keys(db: Connection, digests: Collection[bytes]) -> list[ApiKey]:
    """Reads the keys with these digests or previous digests."""
    return [identities.key(row) for row in await db.fetch(_BY_DIGESTS, list(digests))]


async def find_account(db: Connection, name: str) -> Account | None:
    """Reads the account with this name."""
    row = await db.fetchrow(_ACCOUNT, name)
    return None if row is None else identities.account(row)


async def find_accounts(db: Connection, names: Collection[str]) -> list[Account]:
    """Reads the accounts with these names."""
    return [identities.account(row) for row in await db.fetch(_NAMED_ACCOUNTS, list(names))]


async def get_key(db: Connection, key_id: str) -> ApiKey | None:
    """Reads the key with this id."""
    return _key(await db.fetchrow(_BY_ID, key_id))


async def list_keys(
    db: Connection, account: str | None, page_size: int, after: Sequence[Any]
) -> tuple[list[ApiKey], str | None]:
    """Reads a page, the oldest key first. `after` is the sort key of the preceding row, or empty."""
    found = await db.fetch(_PAGE, *(after or (-1, 0)), account, page_size + 1)
    page = [(identities.key(row), place) for *row, place in map(tuple, found[:page_size])]
    token = paging.encode(page[-1][0].created, page[-1][1]) if len(found) > page_size else None
    return [key for key, _ in page], token


async def list_accounts(db: Connection, page_size: int, after: Sequence[Any]) -> tuple[list[Account], str | None]:
    """Reads a page in the order of the names. `after` is the preceding name, or empty."""
    found = await db.fetch(_ACCOUNTS, *(after or ("",)), page_size + 1)
    page = [identities.account(row) for row in found[:page_size]]
    return page, paging.encode(page[-1].name) if len(found) > page_size else None


async def add_key(db: Connection, key: ApiKey, audit: NewKeyAudit) -> ApiKey:
    """Adds the key, and its account if it does not exist."""
    values = (key.id, key.digest, key.name, key.account.name, list(key.models), key.created, key.expires, key.revoked)
    settings = (list(key.scopes), identities.limits_text(key.limits), key.previous_digest, key.previous_expires)
    async with db.transaction():
        new_account = await _add_account(db, key.account)
        await db.execute(_ADD, *values, *settings)
        added = identities.key(await db.fetchrow(_BY_ID, key.id))
        await add_event(db, audit(added, new_account))
    return added


async def update_key(
    db: Connection, key_id: str, change: Callable[[ApiKey], ApiKey], audit: Audit[ApiKey]
) -> ApiKey | None:
    """Replaces a key; returns None if it does not exist."""
    async with db.transaction():
        before = _key(await db.fetchrow(f"{_BY_ID} FOR UPDATE OF api_keys", key_id))
        if before is None:
            return None
        key = change(before)
        values = (key.digest, key.name, list(key.models), key.expires, key.revoked, list(key.scopes))
        limits = identities.limits_text(key.limits)
        await db.execute(_UPDATE, key_id, *values, limits, key.previous_digest, key.previous_expires)
        await add_event(db, audit(before, key))
    return key


async def add_account(db: Connection, account: Account, audit: Audit[Account]) -> tuple[Account, bool]:
    """Adds an account unless it exists; returns it as stored, and whether it is new."""
    async with db.transaction():
        if await _add_account(db, account):
            await add_event(db, audit(None, account))
            return account, True
        return identities.account(await db.fetchrow(_ACCOUNT, account.name)), False


async def update_account(
    db: Connection, name: str, change: Callable[[Account], Account], audit: Audit[Account]
) -> Account | None:
    """Replaces an account; returns None if it does not exist."""
    async with db.transaction():
        row = await db.fetchrow(f"{_ACCOUNT} FOR UPDATE", name)
        if row is None:
            return None
        before = identities.account(row)
        account = change(before)
        limits = identities.limits_text(account.limits)
        await db.execute(_UPDATE_ACCOUNT, name, account.plan, limits, account.suspended)
        await add_event(db, audit(before, account))
    return account


async def _add_account(db: Connection, account: Account) -> bool:
    """Adds an account unless it exists; returns whether it was added."""
    limits = identities.limits_text(account.limits)
    return await db.fetchval(_ADD_ACCOUNT, account.name, account.plan, limits, account.suspended) is not None


def _key(row: asyncpg.Record | None) -> ApiKey | None:
    return None if row is None else identities.key(row)
