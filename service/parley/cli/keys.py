"""`parley keys`: make, list and revoke API keys. It works on the store itself and needs no running service."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from cyclopts import App, Parameter
from pydantic import TypeAdapter, ValidationError

from parley.auth.api_keys import ApiKeys
from parley.cli.settings import CommandError, ConfigOption, JsonOption, StateDirOption, default_state_dir, state_dir
from parley.config import Config, Duration, load
from parley.core.errors import StoreUnavailable
from parley.core.ports import ApiKey
from parley.stores.opening import is_made, opened

T = TypeVar("T")

app = App(
    name="keys",
    help="Make, list and revoke API keys. It needs no running service.",
    help_epilogue="Example:\n  parley keys create --name ada",
    help_format="plaintext",
)


@app.command(
    help_epilogue="Examples:\n"
    "  parley keys create --name ada\n"
    "  parley keys create --name batch --account acme --model smollm2 --expires 30d\n"
    "  KEY=$(parley keys create --name ci --json | jq -r .key)"
)
def create(  # noqa: PLR0913 - the command's options
    *,
    name: Annotated[str, Parameter(name="--name", help="What the key is for, in lists.")],
    account: Annotated[str, Parameter(name="--account", help="Who owns its sessions; made if it is new.")] = "default",
    model: Annotated[
        list[str] | None, Parameter(name="--model", negative=(), help="A model it may use; repeatable. Default: all.")
    ] = None,
    plan: Annotated[
        Literal["free", "pro"] | None,
        Parameter(
            name="--plan",
            help="Sets the plan of the whole account; free keys are refused. Default: as it is, pro if new.",
        ),
    ] = None,
    expires: Annotated[
        str | None, Parameter(name="--expires", help="How long it is good for: 12h, 30d. Default: until revoked.")
    ] = None,
    json: JsonOption = False,
    state_dir: StateDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Make a key and print it. It is shown only this once."""
    _require("--name", name)
    _require("--account", account)
    checked = load(config)
    models = _known_models(model or [], checked)
    ends = _ends(expires)
    key, secret = _run(checked, state_dir, lambda keys: keys.create(name, account, plan, models, ends))
    if json:
        _print_json({"id": key.id, "key": secret} | _particulars(key))
    else:
        print(secret)
        print(f'This is the only time that the key "{name}" ({key.id}) is shown: keep it now.')


@app.command(name="list", help_epilogue="Examples:\n  parley keys list\n  parley keys list --json | jq -r '.[].id'")
def list_(*, json: JsonOption = False, state_dir: StateDirOption = None, config: ConfigOption = None) -> None:
    """List all keys, the oldest first, without their secrets."""
    checked = load(config)
    keys = _run(checked, _existing(checked, state_dir), lambda keys: keys.list())
    if json:
        rows = [{"id": key.id} | _particulars(key) | {"revoked": key.revoked, "state": _state(key)} for key in keys]
        _print_json(rows)
    else:
        _print_table(keys)


@app.command(help_epilogue="Example:\n  parley keys revoke key_0123456789ab")
def revoke(
    key_id: Annotated[str, Parameter(name="ID", help="The key's id, as `parley keys list` shows it.")],
    /,
    *,
    state_dir: StateDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Make a key invalid for good. A running service refuses it within a second."""
    checked = load(config)
    key = _run(checked, _existing(checked, state_dir), lambda keys: keys.revoke(key_id))
    if key is None:
        raise CommandError(f'no key has the id "{key_id}"; see `parley keys list`')
    print(f'Revoked {key.id} ("{key.name}").')


def _run(config: Config, folder: Path | None, work: Callable[[ApiKeys], Awaitable[T]]) -> T:
    """Opens the store, does the work and closes it again. Raises CommandError."""

    async def run() -> T:
        async with opened(config.store, state_dir(folder)) as store:
            return await work(ApiKeys(store))

    try:
        return asyncio.run(run())
    except StoreUnavailable as error:
        raise CommandError(error.cause or error.message) from error


def _existing(config: Config, folder: Path | None) -> Path:
    """Refuses a folder without a store, before one is made there. Raises CommandError."""
    found = (folder or default_state_dir()).expanduser().absolute()
    if not is_made(config.store, found):
        raise CommandError(f"{found} has no keys; name the service's folder with --state-dir, or make a key first")
    return found


def _require(option: str, value: str) -> None:
    if not value.strip():
        raise CommandError(f"{option} must not be empty")


def _known_models(models: list[str], config: Config) -> list[str]:
    """Refuses a model id that the configuration does not have: such a key would be good for nothing."""
    ids = [model.id for model in config.models]
    for model in models:
        if model not in ids:
            raise CommandError(f'--model: no model has the id "{model}"; use one of: {", ".join(ids)}')
    return list(dict.fromkeys(models))


def _ends(expires: str | None) -> int | None:
    """Reads `30d` as a time from now, in Unix seconds. Raises CommandError."""
    if expires is None:
        return None
    try:
        seconds: float = TypeAdapter(Duration).validate_python(expires)
        ends = int(time.time() + seconds)
        _day(ends)
    except (ValidationError, ValueError, OverflowError) as error:
        raise CommandError(f'--expires: "{expires}" is not a time span; write for example 12h or 30d') from error
    return ends


def _state(key: ApiKey) -> str:
    if key.revoked is not None:
        return "revoked"
    return "expired" if key.expires is not None and key.expires <= time.time() else "active"


def _particulars(key: ApiKey) -> dict[str, Any]:
    """What may be shown of a key at any time."""
    return {
        "name": key.name,
        "account": key.account,
        "plan": key.plan,
        "models": list(key.models),
        "created": key.created,
        "expires": key.expires,
    }


def _print_json(value: Any) -> None:
    print(json.dumps(value, ensure_ascii=False))


def _print_table(keys: Sequence[ApiKey]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("ID", "Name", "Account", "Plan", "Models", "Created", "Expires", "State", box=None, pad_edge=False)
    # An id that is cut short cannot be pasted into `revoke`.
    table.columns[0].no_wrap = True
    table.columns[0].min_width = max((len(key.id) for key in keys), default=0)
    for key in keys:
        models = ", ".join(key.models) or "all"
        expires = "never" if key.expires is None else _day(key.expires)
        row = (key.id, key.name, key.account, key.plan, models, _day(key.created), expires, _state(key))
        table.add_row(*map(Text, row))
    Console().print(table)


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
