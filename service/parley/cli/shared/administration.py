"""Runs changes of keys and accounts for a command, directly in the store, and reads their options."""

import shlex
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

from cyclopts import Parameter

from parley.cli.shared import key_store
from parley.config import Config, Duration
from parley.config.validation import ValidationError, validated
from parley.core.administration import Accounts, Keys, LimitChange, Rules, os_user
from parley.core.errors import AccountNotFound, InvalidRequest, KeyNotFound, KeyRevoked, ParleyError, PlanConflict
from parley.core.ports import AuditStore, Origin, Store
from parley.supervisor.errors import CommandError

T = TypeVar("T")

_OPTIONS = {
    "name": "--name",
    "account": "--account",
    "plan": "--plan",
    "models": "--model",
    "scopes": "--scope",
    "limits": "--limit",
    "expires": "--expires",
    "keep_seconds": "--keep",
}

LimitOption = Annotated[
    list[str] | None,
    Parameter(
        name="--limit",
        negative=(),
        help="A limit of its own, NAME=VALUE, as in the configuration: requests_per_minute=60, tokens_per_day=5M. "
        "Repeatable.",
    ),
]
NoLimitOption = Annotated[
    list[str] | None,
    Parameter(name="--no-limit", negative=(), help="Remove a limit of its own, by name. Repeatable."),
]


@dataclass(frozen=True, slots=True)
class Administration:
    """What a command may change.

    Attributes:
        keys: Changes keys.
        accounts: Changes accounts.
        audit: Reads the audit log.
        origin: The origin of the command's changes.
    """

    keys: Keys
    accounts: Accounts
    audit: AuditStore
    origin: Origin


def administer(config: Config, folder: Path, work: Callable[[Administration], Awaitable[T]]) -> T:
    """Opens the store of a state folder, runs `work` on it and closes it. Raises CommandError."""
    rules = Rules.of(config)

    async def run(store: Store) -> T:
        origin = Origin(f"user:{os_user()}", "cli")
        try:
            return await work(Administration(Keys(store, rules), Accounts(store, rules), store, origin))
        except ParleyError as error:
            if (text := _explain(error)) is None:
                raise
            raise CommandError(text) from error

    return key_store.run(config, folder, run)


def _explain(error: ParleyError) -> str | None:
    """Returns the message of a refused change, in the terms of the command line; None for other errors."""
    match error:
        case KeyNotFound(key_id=key_id):
            return f'no key has the id "{key_id}"; see `parley keys list`'
        case AccountNotFound(name=name):
            return f'no account is named "{name}"; see `parley accounts list`'
        case PlanConflict(account=account, plan=plan, wanted=wanted):
            change = f"parley accounts set {shlex.quote(account)} --plan {wanted}"
            return f'--plan: the account "{account}" is on the plan {plan}; to change it: {change}'
        case KeyRevoked():
            return error.message
        case InvalidRequest(param=str(param)):
            field, _, rest = param.partition(".")
            option = f"{_OPTIONS.get(field, field)} {rest}".strip()
            return error.message.replace(f"`{param}`", option, 1)
    return None


def limit_change(limit: Sequence[str] | None, no_limit: Sequence[str] | None = None) -> LimitChange | None:
    """Parses `--limit NAME=VALUE` and `--no-limit NAME`. Returns None without any of them. Raises CommandError."""
    values: dict[str, float | str | None] = dict.fromkeys(no_limit or ())
    for text in limit or ():
        name, equals, amount = text.partition("=")
        if not equals:
            raise CommandError(f'--limit: "{text}" is not NAME=VALUE; write for example requests_per_minute=60')
        if name in values:
            raise CommandError(f'--limit: "{name}" is given twice; give it once')
        values[name] = amount
    return LimitChange(values) if values else None


def after(duration: str, option: str) -> int:
    """Converts a duration such as `30d`, from now, to Unix seconds. Raises CommandError."""
    return int(time.time() + seconds(duration, option))


def seconds(duration: str, option: str) -> float:
    """Parses a duration such as `30d`, or `0`. Raises CommandError."""
    try:
        return 0.0 if duration.strip() == "0" else validated(Duration, duration)
    except (ValidationError, OverflowError) as error:
        raise CommandError(f'{option}: "{duration}" is not a duration; write for example 12h or 30d') from error
