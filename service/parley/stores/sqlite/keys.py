"""API keys and accounts in SQL: each function is a job of the writer, or a read."""

import json
from collections.abc import Callable, Collection, Sequence
from typing import Any

import apsw

from parley.core.ports import Account, ApiKey, Audit, NewKeyAudit
from parley.stores import identities, paging
from parley.stores.sqlite.audit import add_event
from parley.stores.sqlite.rows import rows

_OWNER = identities.ACCOUNT_COLUMNS
_KEYS = f"SELECT {identities.KEY_COLUMNS}, {_OWNER} FROM api_keys JOIN accounts ON accounts.name = account"
_BY_DIGEST = f"{_KEYS} WHERE digest = ?1 OR previous_digest = ?1"
_BY_ID = f"{_KEYS} WHERE api_keys.id = ?"
_PAGE = f"""
SELECT {identities.KEY_COLUMNS}, {_OWNER}, api_keys.rowid FROM api_keys JOIN accounts ON accounts.name = account
WHERE (created, api_keys.rowid) > (?, ?) AND (?3 IS NULL OR account = ?3)
ORDER BY created, api_keys.rowid LIMIT ?4
"""
_BY_DIGESTS = f"""
{_KEYS} WHERE digest IN (SELECT unhex(value) FROM json_each(?1))
OR previous_digest IN (SELECT unhex(value) FROM json_each(?1))
"""
_MAKE_ACCOUNT = "INSERT INTO accounts (name, plan, limits, suspended) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
_ACCOUNTS = f"SELECT {_OWNER} FROM accounts WHERE name > ? ORDER BY name LIMIT ?"
_NAMED_ACCOUNTS = f"SELECT {_OWNER} FROM accounts WHERE name IN (SELECT value FROM json_each(?))"
_ACCOUNT = f"SELECT {_OWNER} FROM accounts WHERE name = ?"
_UPDATE_ACCOUNT = "UPDATE accounts SET plan = ?, limits = ?, suspended = ? WHERE name = ?"
_ADD = """
INSERT INTO api_keys (
  id, digest, name, account, models, created, expires, revoked, scopes, limits, previous_digest, previous_expires
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_UPDATE = """
UPDATE api_keys SET
  digest = ?, name = ?, models = ?, expires = ?, revoked = ?, scopes = ?, limits = ?,
  previous_digest = ?, previous_expires = ?
WHERE id = ?
"""


def find_key(db: apsw.Connection, digest: bytes) -> ApiKey | None:
    """Reads the key with this digest or previous digest."""
    return _first(db.execute(_BY_DIGEST, (digest,)))


def find_account(db: apsw.Connection, name: str) -> Account | None:
    """Reads the account with this name."""
    found = db.execute(_ACCOUNT, (name,)).fetchall()
    return identities.account(found[0]) if found else None


def find_keys(db: apsw.Connection, digests: Collection[bytes]) -> list[ApiKey]:
    """Reads the keys with these digests or previous digests."""
    return [identities.key(row) for row in db.execute(_BY_DIGESTS, (json.dumps([one.hex() for one in digests]),))]


def find_accounts(db: apsw.Connection, names: Collection[str]) -> list[Account]:
    """Reads the accounts with these names."""
    return [identities.account(row) for row in db.execute(_NAMED_ACCOUNTS, (json.dumps(list(names)),))]


def get_key(db: apsw.Connection, key_id: str) -> ApiKey | None:
    """Reads the key with this id."""
    return _first(db.execute(_BY_ID, (key_id,)))


def list_keys(
    db: apsw.Connection, account: str | None, page_size: int, after: Sequence[Any]
) -> tuple[list[ApiKey], str | None]:
    """Reads a page, the oldest key first. `after` is the sort key of the preceding row, or empty."""
    found = rows(db, _PAGE, (*(after or (-1, 0)), account, page_size + 1))
    page = [(identities.key(row), place) for *row, place in found[:page_size]]
    token = paging.encode(page[-1][0].created, page[-1][1]) if len(found) > page_size else None
    return [key for key, _ in page], token


def list_accounts(db: apsw.Connection, page_size: int, after: Sequence[Any]) -> tuple[list[Account], str | None]:
    """Reads a page in the order of the names. `after` is the preceding name, or empty."""
    found = rows(db, _ACCOUNTS, (*(after or ("",)), page_size + 1))
    page = [identities.account(row) for row in found[:page_size]]
    return page, paging.encode(page[-1].name) if len(found) > page_size else None


def add_key(db: apsw.Connection, key: ApiKey, audit: NewKeyAudit) -> ApiKey:
    """Adds the key, and its account if it does not exist."""
    new_account = _add_account(db, key.account)
    values = (key.id, key.digest, key.name, key.account.name, json.dumps(key.models), key.created, key.expires)
    settings = (key.revoked, json.dumps(key.scopes), identities.limits_text(key.limits))
    db.execute(_ADD, (*values, *settings, key.previous_digest, key.previous_expires))
    added = identities.key(db.execute(_BY_ID, (key.id,)).fetchall()[0])
    add_event(db, audit(added, new_account))
    return added


def update_key(
    db: apsw.Connection, key_id: str, change: Callable[[ApiKey], ApiKey], audit: Audit[ApiKey]
) -> ApiKey | None:
    """Replaces a key; returns None if it does not exist."""
    before = get_key(db, key_id)
    if before is None:
        return None
    key = change(before)
    values = (key.digest, key.name, json.dumps(key.models), key.expires, key.revoked, json.dumps(key.scopes))
    settings = (identities.limits_text(key.limits), key.previous_digest, key.previous_expires)
    db.execute(_UPDATE, (*values, *settings, key_id))
    add_event(db, audit(before, key))
    return key


def add_account(db: apsw.Connection, account: Account, audit: Audit[Account]) -> tuple[Account, bool]:
    """Adds an account unless it exists; returns it as stored, and whether it is new."""
    if _add_account(db, account):
        add_event(db, audit(None, account))
        return account, True
    return identities.account(db.execute(_ACCOUNT, (account.name,)).fetchall()[0]), False


def update_account(
    db: apsw.Connection, name: str, change: Callable[[Account], Account], audit: Audit[Account]
) -> Account | None:
    """Replaces an account; returns None if it does not exist."""
    before = find_account(db, name)
    if before is None:
        return None
    account = change(before)
    db.execute(_UPDATE_ACCOUNT, (account.plan, identities.limits_text(account.limits), account.suspended, name))
    add_event(db, audit(before, account))
    return account


def _add_account(db: apsw.Connection, account: Account) -> bool:
    """Adds an account unless it exists; returns whether it was added."""
    db.execute(_MAKE_ACCOUNT, (account.name, account.plan, identities.limits_text(account.limits), account.suspended))
    return db.changes() > 0


def _first(found: apsw.Cursor) -> ApiKey | None:
    for row in found.fetchall():
        return identities.key(row)
    return None
