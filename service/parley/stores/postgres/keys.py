"""API keys and accounts in SQL."""

import asyncpg

from parley.core.ports import ApiKey
from parley.stores.postgres.database import Connection

_KEYS = """
SELECT id, api_keys.name, account, plan, digest, models, created, expires, revoked
FROM parley.api_keys JOIN parley.accounts ON accounts.name = account
"""
_BY_DIGEST = f"{_KEYS} WHERE digest = $1"
_ALL = f"{_KEYS} ORDER BY created, place"
_ADD = """
WITH account AS (
  INSERT INTO parley.accounts AS known (name, plan) VALUES ($4, $9)
  ON CONFLICT (name) DO UPDATE SET plan = known.plan
  RETURNING name, plan
), added AS (
  INSERT INTO parley.api_keys (id, digest, name, account, models, created, expires, revoked)
  VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING *
)
SELECT id, added.name, account, plan, digest, models, created, expires, revoked FROM added, account
"""
_PLANS = "SELECT name, plan FROM parley.accounts ORDER BY name"
_SET_PLAN = "UPDATE parley.accounts SET plan = $2 WHERE name = $1 RETURNING name"
_REVOKE = """
WITH revoked AS (
  UPDATE parley.api_keys SET revoked = coalesce(revoked, $2) WHERE id = $1 RETURNING *
)
SELECT id, revoked.name, account, plan, digest, models, created, expires, revoked.revoked
FROM revoked JOIN parley.accounts ON accounts.name = account
"""


async def find_key(db: Connection, digest: bytes) -> ApiKey | None:
    """Reads the key with this digest."""
    return _key(await db.fetchrow(_BY_DIGEST, digest))


async def list_keys(db: Connection) -> list[ApiKey]:
    """Reads all keys, oldest first."""
    return [key for row in await db.fetch(_ALL) if (key := _key(row)) is not None]


async def add_key(db: Connection, key: ApiKey) -> ApiKey:
    """Adds the key, and its account if it does not exist."""
    values = (key.id, key.digest, key.name, key.account, list(key.models), key.created, key.expires, key.revoked)
    added = _key(await db.fetchrow(_ADD, *values, key.plan))
    assert added is not None  # noqa: S101 - for the type checker
    return added


async def plans(db: Connection) -> dict[str, str]:
    """Reads the plan of every account."""
    return {row["name"]: row["plan"] for row in await db.fetch(_PLANS)}


async def set_plan(db: Connection, account: str, plan: str) -> bool:
    """Sets the plan of an account; returns False if it does not exist."""
    return await db.fetchval(_SET_PLAN, account, plan) is not None


async def revoke_key(db: Connection, key_id: str, now: int) -> ApiKey | None:
    """Marks the key as revoked if it is not; returns None if it does not exist."""
    return _key(await db.fetchrow(_REVOKE, key_id, now))


def _key(row: asyncpg.Record | None) -> ApiKey | None:
    if row is None:
        return None
    key_id, name, account, plan, digest, models, created, expires, revoked = row
    return ApiKey(key_id, name, account, plan, digest, tuple(models), created, expires, revoked)
