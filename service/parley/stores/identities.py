"""Conversion between keys or accounts and rows, shared by the databases."""

from typing import Any

import orjson

from parley.config import LIMIT_NAMES, UNLIMITED, Limits
from parley.core.ports import Account, ApiKey

ACCOUNT_COLUMNS = "accounts.name, plan, accounts.limits, suspended"
KEY_COLUMNS = (
    "api_keys.id, api_keys.name, digest, models, created, expires, revoked, scopes, api_keys.limits, "
    "previous_digest, previous_expires"
)
"""The columns of a key, which those of its account follow."""


def limits(stored: str) -> Limits:
    """Parses stored limits. Limits of a newer version are ignored, so that it can be rolled out worker by worker."""
    values = {name: value for name, value in orjson.loads(stored).items() if name in LIMIT_NAMES}
    return Limits(**values) if values else UNLIMITED


def limits_text(own: Limits) -> str:
    """Serializes limits, those that are set."""
    return orjson.dumps(own.set_values()).decode()


def account(row: Any) -> Account:
    """Converts a row of `ACCOUNT_COLUMNS`."""
    name, plan, own, suspended = row
    return Account(name, plan, limits(own), suspended)


def key(row: Any) -> ApiKey:
    """Converts a row of `KEY_COLUMNS` and `ACCOUNT_COLUMNS`."""
    identifier, name, digest, models, created, expires, revoked, scopes, own, previous, previous_expires, *owner = row
    return ApiKey(
        identifier,
        name,
        account(owner),
        digest,
        tuple(_list(models)),
        created,
        expires,
        revoked,
        tuple(_list(scopes)),
        limits(own),
        previous,
        previous_expires,
    )


def _list(value: Any) -> list[Any]:
    """Returns a list of texts, which SQLite stores as JSON."""
    return orjson.loads(value) if isinstance(value, str) else value  # type: ignore[no-any-return]
