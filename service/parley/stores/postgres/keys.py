"""API keys and accounts in SQL."""

import asyncpg

from parley.core.ports import Account, ApiKey
from parley.stores import identities
from parley.stores.postgres.database import Connection

_COLUMNS = f"{identities.KEY_COLUMNS}, {identities.ACCOUNT_COLUMNS}"
_KEYS = f"SELECT {_COLUMNS} FROM parley.api_keys JOIN parley.accounts ON accounts.name = account"
# Two branches, each with its own index: one condition with OR may be planned as a scan of the table.
_BY_DIGEST = f"{_KEYS} WHERE digest = $1 UNION ALL {_KEYS} WHERE previous_digest = $1 LIMIT 1"
_ALL = f"{_KEYS} ORDER BY created, place"
_ADD_ACCOUNT = f"""
INSERT INTO parley.accounts AS accounts (name, plan, limits, suspended) VALUES ($1, $2, $3, $4)
ON CONFLICT (name) DO UPDATE SET plan = accounts.plan
RETURNING {identities.ACCOUNT_COLUMNS}
"""
_ADD = f"""
WITH accounts AS (
  INSERT INTO parley.accounts AS known (name, plan, limits, suspended) VALUES ($4, $13, $14, $15)
  ON CONFLICT (name) DO UPDATE SET plan = known.plan
  RETURNING *
), api_keys AS (
  INSERT INTO parley.api_keys (
    id, digest, name, account, models, created, expires, revoked, scopes, limits, previous_digest, previous_expires
  ) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) RETURNING *
)
SELECT {_COLUMNS} FROM api_keys, accounts
"""
_ACCOUNTS = f"SELECT {identities.ACCOUNT_COLUMNS} FROM parley.accounts ORDER BY name"
_ACCOUNT = f"SELECT {identities.ACCOUNT_COLUMNS} FROM parley.accounts WHERE name = $1"
_SET_PLAN = "UPDATE parley.accounts SET plan = $2 WHERE name = $1 RETURNING name"
_REVOKE = f"""
WITH api_keys AS (
  UPDATE parley.api_keys SET revoked = coalesce(revoked, $2) WHERE id = $1 RETURNING *
)
SELECT {_COLUMNS} FROM api_keys JOIN parley.accounts ON accounts.name = account
"""


async def find_key(db: Connection, digest: bytes) -> ApiKey | None:
    """Reads the key with this digest or previous digest."""
    return _key(await db.fetchrow(_BY_DIGEST, digest))


async def find_account(db: Connection, name: str) -> Account | None:
    """Reads the account with this name."""
    row = await db.fetchrow(_ACCOUNT, name)
    return None if row is None else identities.account(row)


async def list_keys(db: Connection) -> list[ApiKey]:
    """Reads all keys, oldest first."""
    return [identities.key(row) for row in await db.fetch(_ALL)]


async def add_account(db: Connection, account: Account) -> Account:
    """Adds the account if it does not exist; returns it as stored."""
    values = (account.name, account.plan, identities.limits_text(account.limits), account.suspended)
    return identities.account(await db.fetchrow(_ADD_ACCOUNT, *values))


async def add_key(db: Connection, key: ApiKey) -> ApiKey:
    """Adds the key, and its account if it does not exist."""
    account = key.account
    values = (key.id, key.digest, key.name, account.name, list(key.models), key.created, key.expires, key.revoked)
    settings = (list(key.scopes), identities.limits_text(key.limits), key.previous_digest, key.previous_expires)
    owner = (account.plan, identities.limits_text(account.limits), account.suspended)
    return identities.key(await db.fetchrow(_ADD, *values, *settings, *owner))


async def list_accounts(db: Connection) -> list[Account]:
    """Reads all accounts in the order of their names."""
    return [identities.account(row) for row in await db.fetch(_ACCOUNTS)]


async def set_plan(db: Connection, account: str, plan: str) -> bool:
    """Sets the plan of an account; returns False if it does not exist."""
    return await db.fetchval(_SET_PLAN, account, plan) is not None


async def revoke_key(db: Connection, key_id: str, now: int) -> ApiKey | None:
    """Marks the key as revoked if it is not; returns None if it does not exist."""
    return _key(await db.fetchrow(_REVOKE, key_id, now))


def _key(row: asyncpg.Record | None) -> ApiKey | None:
    return None if row is None else identities.key(row)
