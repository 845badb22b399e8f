"""API keys and accounts in SQL: each function is a job of the writer, or a read."""

import json

import apsw

from parley.core.ports import Account, ApiKey
from parley.stores import identities

_OWNER = identities.ACCOUNT_COLUMNS
_KEYS = f"SELECT {identities.KEY_COLUMNS}, {_OWNER} FROM api_keys JOIN accounts ON accounts.name = account"
_BY_DIGEST = f"{_KEYS} WHERE digest = ?1 OR previous_digest = ?1"
_BY_ID = f"{_KEYS} WHERE api_keys.id = ?"
_ALL = f"{_KEYS} ORDER BY created, api_keys.rowid"
_MAKE_ACCOUNT = "INSERT INTO accounts (name, plan, limits, suspended) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
_ACCOUNTS = f"SELECT {_OWNER} FROM accounts ORDER BY name"
_ACCOUNT = f"SELECT {_OWNER} FROM accounts WHERE name = ?"
_SET_PLAN = "UPDATE accounts SET plan = ? WHERE name = ?"
_ADD = """
INSERT INTO api_keys (
  id, digest, name, account, models, created, expires, revoked, scopes, limits, previous_digest, previous_expires
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_REVOKE = "UPDATE api_keys SET revoked = ? WHERE id = ? AND revoked IS NULL"


def find_key(db: apsw.Connection, digest: bytes) -> ApiKey | None:
    """Reads the key with this digest or previous digest."""
    return _first(db.execute(_BY_DIGEST, (digest,)))


def find_account(db: apsw.Connection, name: str) -> Account | None:
    """Reads the account with this name."""
    found = db.execute(_ACCOUNT, (name,)).fetchall()
    return identities.account(found[0]) if found else None


def list_keys(db: apsw.Connection) -> list[ApiKey]:
    """Reads all keys, oldest first."""
    return [identities.key(row) for row in db.execute(_ALL)]


def add_account(db: apsw.Connection, account: Account) -> Account:
    """Adds the account if it does not exist; returns it as stored."""
    db.execute(_MAKE_ACCOUNT, (account.name, account.plan, identities.limits_text(account.limits), account.suspended))
    return identities.account(db.execute(_ACCOUNT, (account.name,)).fetchall()[0])


def add_key(db: apsw.Connection, key: ApiKey) -> ApiKey:
    """Adds the key, and its account if it does not exist."""
    account = add_account(db, key.account)
    values = (key.id, key.digest, key.name, account.name, json.dumps(key.models), key.created, key.expires, key.revoked)
    settings = (json.dumps(key.scopes), identities.limits_text(key.limits), key.previous_digest, key.previous_expires)
    db.execute(_ADD, (*values, *settings))
    return identities.key(db.execute(_BY_ID, (key.id,)).fetchall()[0])


def list_accounts(db: apsw.Connection) -> list[Account]:
    """Reads all accounts in the order of their names."""
    return [identities.account(row) for row in db.execute(_ACCOUNTS)]


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
    return identities.key(found[0]) if found else None
