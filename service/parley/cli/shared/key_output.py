"""Prints keys and accounts: as tables, one by one, and as JSON."""

import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from parley.cli.shared.terminal import json_text, print_table, without_control_characters
from parley.config import Limits
from parley.core.administration import key_state
from parley.core.ports import Account, ApiKey


def print_json(value: Any) -> None:
    """Prints a value as one line of JSON."""
    print(json_text(json.dumps(value, ensure_ascii=False)))


def print_fields(fields: Mapping[str, Any]) -> None:
    """Prints the fields of one thing, a line for each."""
    width = max(map(len, fields))
    for name, value in fields.items():
        print(without_control_characters(f"{name:{width}}  {value}"))


def key_fields(key: ApiKey) -> dict[str, Any]:
    """Returns the properties of a key that are not secret, for JSON."""
    return {
        "name": key.name,
        "account": key.account.name,
        "plan": key.account.plan,
        "models": list(key.models),
        "scopes": list(key.scopes),
        "limits": _limits(key.limits),
        "created": key.created,
        "expires": key.expires,
        "revoked": key.revoked,
        "previous_expires": key.previous_expires,
        "state": key_state(key, time.time()),
    }


def account_fields(account: Account) -> dict[str, Any]:
    """Returns the properties of an account, for JSON."""
    return {
        "name": account.name,
        "plan": account.plan,
        "limits": _limits(account.limits),
        "suspended": account.suspended,
    }


def print_keys(keys: Sequence[ApiKey]) -> None:
    """Prints a table of keys."""
    rows = [
        (
            key.id,
            key.name,
            key.account.name,
            key.account.plan,
            ", ".join(key.models) or "all",
            day(key.created),
            "never" if key.expires is None else day(key.expires),
            key_state(key, time.time()),
        )
        for key in keys
    ]
    names = ("ID", "Name", "Account", "Plan", "Models", "Created", "Expires", "State")
    print_table(names, rows, folded=("Name", "Account", "Models"))


def print_key(key: ApiKey) -> None:
    """Prints all properties of a key."""
    fields = {
        "ID": key.id,
        "Name": key.name,
        "State": key_state(key, time.time()),
        "Account": key.account.name,
        "Plan": key.account.plan,
        "Models": ", ".join(key.models) or "all",
        "Scopes": ", ".join(key.scopes) or "all",
        "Limits": limits_text(key.limits),
        "Created": moment(key.created),
        "Expires": "never" if key.expires is None else moment(key.expires),
    }
    if key.revoked is not None:
        fields["Revoked"] = moment(key.revoked)
    if key.previous_expires is not None:
        over = key.previous_expires <= time.time()
        fields["Old secret"] = f"{'expired' if over else 'valid until'} {moment(key.previous_expires)}"
    print_fields(fields)


def print_account(account: Account) -> None:
    """Prints all properties of an account."""
    fields = {
        "Name": account.name,
        "Plan": account.plan,
        "Limits": limits_text(account.limits),
        "Suspended": "no" if account.suspended is None else f"since {moment(account.suspended)}",
    }
    print_fields(fields)


def limits_text(limits: Limits) -> str:
    """Returns the limits as `requests_per_minute=60, …`."""
    return ", ".join(f"{name}={value}" for name, value in _limits(limits).items()) or "those of the configuration"


def day(seconds: int) -> str:
    """Returns the date of a Unix time."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def moment(seconds: int) -> str:
    """Returns the date and time of a Unix time."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _limits(limits: Limits) -> dict[str, Any]:
    return limits.set_values()
