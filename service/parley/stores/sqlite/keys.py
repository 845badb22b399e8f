"""API keys and accounts in SQL: each function is a job of the writer, or a read."""

import json
from typing import Any

import apsw

from parley.core.ports import ApiKey

_KEYS = """
SELECT api_keys.id, api_keys.name, account, plan, digest, models, created, expires, revoked
FROM api_keys JOIN accounts ON accounts.name = account
"""
_BY_DIGEST = f"{_KEYS} WHERE digest = ?"
_BY_ID = f"{_KEYS} WHERE api_keys.id = ?"
_ALL = f"{_KEYS} ORDER BY created, api_keys.rowid"
_MAKE_ACCOUNT = "INSERT INTO accounts (name, plan) VALUES (?, ?) ON CONFLICT DO NOTHING"
_PLANS = "SELECT name, plan FROM accounts ORDER BY name"
_SET_PLAN = "UPDATE accounts SET plan = ? WHERE name = ?"
_ADD = """
INSERT INTO api_keys (id, digest, name, account, models, created, expires, revoked) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
"""
_REVOKE = "UPDATE api_keys SET revoked = ? WHERE id = ? AND revoked IS NULL"


def find_key(db: apsw.Connection, digest: bytes) -> ApiKey | None:
    """Reads the key with this digest."""
    return _first(db.execute(_BY_DIGEST, (digest,)))


def list_keys(db: apsw.Connection) -> list[ApiKey]:
    """Reads all keys, oldest first."""
    return [_key(row) for row in db.execute(_ALL)]


def add_key(db: apsw.Connection, key: ApiKey) -> ApiKey:
    """Adds the key, and its account if it does not exist."""
    db.execute(_MAKE_ACCOUNT, (key.account, key.plan))
    models = json.dumps(key.models)
    db.execute(_ADD, (key.id, key.digest, key.name, key.account, models, key.created, key.expires, key.revoked))
    return _key(db.execute(_BY_ID, (key.id,)).fetchall()[0])


def plans(db: apsw.Connection) -> dict[str, str]:
    """Reads the plan of every account."""
    return {str(name): str(plan) for name, plan in db.execute(_PLANS)}


def set_plan(db: apsw.Connection, account: str, plan: str) -> bool:
    """Sets the plan of an account; returns False if it does not exist."""
    db.execute(_SET_PLAN, (plan, account))
    return db.changes() > 0


def revoke_key(db: apsw.Connection, key_id: str, now: int) -> ApiKey | None:
    """Marks the key as revoked if it is not; returns None if it does not exist."""
    db.execute(_REVOKE, (now, key_id))
    return _first(db.execute(_BY_ID, (key_id,)))


def _first(rows: apsw.Cursor) -> ApiKey | None:
    found = rows.fetchall()
    return _key(found[0]) if found else None


def _key(row: tuple[Any, ...]) -> ApiKey:
    key_id, name, account, plan, digest, models, created, expires, revoked = row
    return ApiKey(key_id, name, account, plan, digest, tuple(json.loads(models)), created, expires, revoked)
