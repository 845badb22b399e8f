"""`parley keys`: creates, lists and revokes API keys, directly in the store, without a running service."""

import json
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from cyclopts import App, Parameter
from pydantic import TypeAdapter, ValidationError

from parley.auth.api_keys import ApiKeys
from parley.auth.callers import Callers
from parley.cli.shared import key_store
from parley.cli.shared.checks import require_plan
from parley.cli.shared.options import ConfigOption, JsonOption, StateDirOption
from parley.cli.shared.terminal import print_table
from parley.config import Config, Duration, load
from parley.core.ports import ApiKey, KeyStore
from parley.supervisor import folders
from parley.supervisor.errors import CommandError

app = App(
    name="keys",
    help="Create, list and revoke API keys. Needs no running service.",
    help_epilogue="Example:\n  parley keys create --name ada",
    help_format="plaintext",
)


@dataclass(frozen=True, slots=True)
class NewKey:
    """The properties of a key to create.

    Attributes:
        name: What the key is for.
        account: The account that owns the key's sessions.
        plan: The plan of a new account; None for the first plan with access.
        models: Ids of the models that the key may use; empty for all.
        expires: When the key expires, in Unix seconds; None for never.
    """

    name: str
    account: str
    plan: str | None
    models: Sequence[str]
    expires: int | None


@app.command(
    help_epilogue="Examples:\n"
    "  parley keys create --name ada\n"
    "  parley keys create --name batch --account acme --model smollm2 --expires 30d\n"
    "  KEY=$(parley keys create --name ci --json | jq -r .key)"
)
def create(  # noqa: PLR0913 - the command's options
    *,
    name: Annotated[str, Parameter(name="--name", help="What the key is for; shown in lists.")],
    account: Annotated[
        str, Parameter(name="--account", help="The account that owns its sessions; created if new.")
    ] = "default",
    model: Annotated[
        list[str] | None, Parameter(name="--model", negative=(), help="A model it may use; repeatable. Default: all.")
    ] = None,
    plan: Annotated[
        str | None,
        Parameter(
            name="--plan",
            help="The plan of a new account: free has no access. Default: pro. See `parley accounts set`.",
        ),
    ] = None,
    expires: Annotated[
        str | None, Parameter(name="--expires", help="How long it is valid: 12h, 30d. Default: until revoked.")
    ] = None,
    json: JsonOption = False,
    state_dir: StateDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Create a key and print it. The secret cannot be shown again."""
    _require("--name", name)
    _require("--account", account)
    checked = load(config)
    if plan is not None:
        require_plan(plan, checked)
    models = _known_models(model or [], checked)
    ends = _expiry(expires)
    wanted = NewKey(name, account, plan, models, ends)
    key, secret = key_store.run(checked, folders.state_dir(state_dir), lambda store: _create(store, wanted, checked))
    if json:
        _print_json({"id": key.id, "key": secret} | _public_fields(key))
    else:
        print(secret)
        print(f'This is the only time that the key "{name}" ({key.id}) is shown: keep it now.')


@app.command(name="list", help_epilogue="Examples:\n  parley keys list\n  parley keys list --json | jq -r '.[].id'")
def list_(*, json: JsonOption = False, state_dir: StateDirOption = None, config: ConfigOption = None) -> None:
    """List all keys, the oldest first, without their secrets."""
    checked = load(config)
    keys = key_store.run(checked, key_store.existing(checked, state_dir), lambda store: ApiKeys(store).list())
    if json:
        rows = [{"id": key.id} | _public_fields(key) | {"revoked": key.revoked, "state": _state(key)} for key in keys]
        _print_json(rows)
    else:
        _show(keys)


@app.command(help_epilogue="Example:\n  parley keys revoke key_0123456789ab")
def revoke(
    key_id: Annotated[str, Parameter(name="ID", help="The key's id, as `parley keys list` shows it.")],
    /,
    *,
    state_dir: StateDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Revoke a key permanently. A running service rejects it within a second."""
    checked = load(config)
    key = key_store.run(checked, key_store.existing(checked, state_dir), lambda store: ApiKeys(store).revoke(key_id))
    if key is None:
        raise CommandError(f'no key has the id "{key_id}"; see `parley keys list`')
    print(f'Revoked {key.id} ("{key.name}").')


async def _create(store: KeyStore, key: NewKey, config: Config) -> tuple[ApiKey, str]:
    """Creates a key. Raises CommandError if `plan` differs from the plan of an existing account."""
    account = await store.find_account(key.account)
    if key.plan and account and account.plan != key.plan:
        change = f"parley accounts set {shlex.quote(key.account)} --plan {key.plan}"
        raise CommandError(f'--plan: the account "{key.account}" is on the plan {account.plan}; to change it: {change}')
    return await ApiKeys(store, Callers(config.plans)).create(key.name, key.account, key.plan, key.models, key.expires)


def _require(option: str, value: str) -> None:
    if not value.strip():
        raise CommandError(f"{option} must not be empty")


def _known_models(models: list[str], config: Config) -> list[str]:
    """Returns the ids without duplicates. Raises CommandError for an id that is not configured."""
    ids = [model.id for model in config.models]
    for model in models:
        if model not in ids:
            raise CommandError(f'--model: no model has the id "{model}"; use one of: {", ".join(ids)}')
    return list(dict.fromkeys(models))


def _expiry(expires: str | None) -> int | None:
    """Converts a duration such as `30d`, from now, to Unix seconds. Raises CommandError."""
    if expires is None:
        return None
    try:
        seconds: float = TypeAdapter(Duration).validate_python(expires)
        ends = int(time.time() + seconds)
        _day(ends)
    except (ValidationError, ValueError, OverflowError) as error:
        raise CommandError(f'--expires: "{expires}" is not a duration; write for example 12h or 30d') from error
    return ends


def _state(key: ApiKey) -> str:
    if key.revoked is not None:
        return "revoked"
    return "expired" if key.expires is not None and key.expires <= time.time() else "active"


def _public_fields(key: ApiKey) -> dict[str, Any]:
    """Returns the properties of a key that are not secret."""
    return {
        "name": key.name,
        "account": key.account.name,
        "plan": key.account.plan,
        "models": list(key.models),
        "created": key.created,
        "expires": key.expires,
    }


def _print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False))


def _show(keys: Sequence[ApiKey]) -> None:
    rows = [
        (
            key.id,
            key.name,
            key.account.name,
            key.account.plan,
            ", ".join(key.models) or "all",
            _day(key.created),
            "never" if key.expires is None else _day(key.expires),
            _state(key),
        )
        for key in keys
    ]
    names = ("ID", "Name", "Account", "Plan", "Models", "Created", "Expires", "State")
    print_table(names, rows, folded=("Name", "Account", "Models"))


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
