"""`parley keys`: creates, lists and changes API keys, directly in the store, without a running service."""

import sys
from pathlib import Path
from typing import Annotated, Any, TextIO

from cyclopts import App, Parameter

from parley.cli.shared import administration, key_store
from parley.cli.shared.administration import Administration, LimitOption, NoLimitOption, administer, limit_change
from parley.cli.shared.key_output import key_fields, moment, print_json, print_key, print_keys
from parley.cli.shared.options import ConfigOption, JsonOption, StateDirOption
from parley.cli.shared.terminal import without_control_characters
from parley.config import Config
from parley.config.loader import load
from parley.core.administration import DEFAULT_ACCOUNT, KeySettings
from parley.core.ports import ApiKey
from parley.supervisor import folders
from parley.supervisor.errors import CommandError

app = App(
    name="keys",
    help="Create, list, change, rotate and revoke API keys. Needs no running service; a running one applies changes "
    "within a second.",
    help_epilogue="Examples:\n"
    "  parley keys create --name ada\n"
    "  parley keys rotate key_0123456789ab --keep 24h\n"
    "  parley keys revoke key_0123456789ab",
    help_format="plaintext",
)

KeyId = Annotated[str, Parameter(name="ID", help="The key's id, as `parley keys list` shows it.")]
ModelOption = Annotated[
    list[str] | None, Parameter(name="--model", negative=(), help="A model it may use; repeatable. Default: all.")
]
ScopeOption = Annotated[
    list[str] | None,
    Parameter(
        name="--scope",
        negative=(),
        help="What it may do: chat, sessions:read, sessions:write, models; repeatable. Default: everything.",
    ),
]


@app.command(
    help_epilogue="Examples:\n"
    "  parley keys create --name ada\n"
    "  parley keys create --name batch --account acme --model smollm2 --scope chat --expires 30d\n"
    "  parley keys create --name ci --limit requests_per_minute=60 --limit tokens_per_minute=100K\n"
    "  KEY=$(parley keys create --name ci)"
)
def create(  # noqa: PLR0913 - the command's options
    *,
    name: Annotated[str, Parameter(name="--name", help="What the key is for; shown in lists.")],
    account: Annotated[
        str, Parameter(name="--account", help="The account that owns its sessions; created if new.")
    ] = DEFAULT_ACCOUNT,
    model: ModelOption = None,
    scope: ScopeOption = None,
    limit: LimitOption = None,
    plan: Annotated[
        str | None,
        Parameter(
            name="--plan",
            help="The plan of a new account, one of those of the configuration. Default: pro, or the first one with "
            "access to the API. See `parley accounts set`.",
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
    checked = load(config)
    change = limit_change(limit)
    settings = KeySettings(
        name=name,
        account=account,
        plan=plan,
        models=model or (),
        scopes=scope or (),
        limits=change.values if change else {},
        expires=None if expires is None else administration.after(expires, "--expires"),
    )
    key, secret = administer(checked, folders.state_dir(state_dir), lambda admin: _create(admin, settings))
    _print_secret(key, secret, json=json)


@app.command(
    name="list",
    help_epilogue="Examples:\n  parley keys list --account acme\n  parley keys list --json | jq -r '.[].id'",
)
def list_(
    *,
    account: Annotated[str | None, Parameter(name="--account", help="Only keys of this account.")] = None,
    json: JsonOption = False,
    state_dir: StateDirOption = None,
    config: ConfigOption = None,
) -> None:
    """List all keys, the oldest first, without their secrets; revoked and expired ones, too."""
    checked = load(config)
    keys = administer(checked, key_store.existing(checked, state_dir), lambda admin: admin.keys.all(account))
    if json:
        print_json([{"id": key.id} | key_fields(key) for key in keys])
    else:
        print_keys(keys)


@app.command(help_epilogue="Example:\n  parley keys show key_0123456789ab")
def show(
    key_id: KeyId, /, *, json: JsonOption = False, state_dir: StateDirOption = None, config: ConfigOption = None
) -> None:
    """Show all properties of a key, without its secret."""
    checked = load(config)
    key = administer(checked, key_store.existing(checked, state_dir), lambda admin: admin.keys.get(key_id))
    if json:
        print_json({"id": key.id} | key_fields(key))
    else:
        print_key(key)


@app.command(
    name="set",
    help_epilogue="Examples:\n"
    "  parley keys set key_0123456789ab --model smollm2 --scope chat --scope models\n"
    "  parley keys set key_0123456789ab --limit requests_per_minute=60 --no-limit tokens_per_minute\n"
    "  parley keys set key_0123456789ab --all-models --all-scopes",
)
def set_(  # noqa: PLR0913 - the command's options
    key_id: KeyId,
    /,
    *,
    model: Annotated[
        list[str] | None, Parameter(name="--model", negative=(), help="The models it may use from now on; repeatable.")
    ] = None,
    all_models: Annotated[bool, Parameter(name="--all-models", negative=(), help="It may use every model.")] = False,
    scope: Annotated[
        list[str] | None,
        Parameter(
            name="--scope",
            negative=(),
            help="What it may do from now on: chat, sessions:read, sessions:write, models; repeatable.",
        ),
    ] = None,
    all_scopes: Annotated[bool, Parameter(name="--all-scopes", negative=(), help="It may do everything.")] = False,
    limit: LimitOption = None,
    no_limit: NoLimitOption = None,
    state_dir: StateDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Change the models, scopes and limits of a key."""
    changes: dict[str, Any] = {
        "models": _chosen("--model", model, everything=all_models),
        "scopes": _chosen("--scope", scope, everything=all_scopes),
        "limits": limit_change(limit, no_limit),
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    if not changes:
        raise CommandError("nothing to change; give --model, --scope, --limit or --no-limit")
    print_key(_update(load(config), state_dir, key_id, changes))


@app.command(help_epilogue="Example:\n  parley keys rename key_0123456789ab batch-2")
def rename(
    key_id: KeyId,
    name: Annotated[str, Parameter(name="NAME", help="The new name.")],
    /,
    *,
    state_dir: StateDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Rename a key."""
    key = _update(load(config), state_dir, key_id, {"name": name})
    _print_notice(f'{key.id} is named "{key.name}".')


@app.command(
    help_epilogue="Examples:\n"
    "  parley keys expire key_0123456789ab\n"
    "  parley keys expire key_0123456789ab --in 30d\n"
    "  parley keys expire key_0123456789ab --never"
)
def expire(
    key_id: KeyId,
    /,
    *,
    in_: Annotated[str, Parameter(name="--in", help="When it expires, from now: 12h, 30d. Default: at once.")] = "0",
    never: Annotated[bool, Parameter(name="--never", negative=(), help="It is valid until it is revoked.")] = False,
    state_dir: StateDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Set when a key expires. Unlike a revocation, it can be undone by a later time or by --never."""
    expires = None if never else administration.after(in_, "--in")
    key = _update(load(config), state_dir, key_id, {"expires": expires})
    when = "never expires" if key.expires is None else f"expires at {moment(key.expires)}"
    _print_notice(f'{key.id} ("{key.name}") {when}.')


@app.command(
    help_epilogue="Examples:\n"
    "  parley keys rotate key_0123456789ab\n"
    "  parley keys rotate key_0123456789ab --keep 0     (the old secret has leaked)\n"
    "  KEY=$(parley keys rotate key_0123456789ab --keep 7d)"
)
def rotate(
    key_id: KeyId,
    /,
    *,
    keep: Annotated[
        str, Parameter(name=("--keep", "--overlap"), help="How long the old secret stays valid: 0, 12h, 7d.")
    ] = "24h",
    json: JsonOption = False,
    state_dir: StateDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Give a key a new secret and print it; id, models, scopes and limits stay. Both secrets are valid for a while."""
    checked = load(config)
    seconds = int(administration.seconds(keep, "--keep"))
    folder = key_store.existing(checked, state_dir)
    key, secret = administer(checked, folder, lambda admin: admin.keys.rotate(key_id, seconds, admin.origin))
    _print_secret(key, secret, json=json)
    if not json:
        until = f"valid until {moment(key.previous_expires or 0)}" if seconds else "no longer valid"
        _print_notice(f"The old secret is {until}.", sys.stderr)


@app.command(help_epilogue="Example:\n  parley keys revoke key_0123456789ab")
def revoke(key_id: KeyId, /, *, state_dir: StateDirOption = None, config: ConfigOption = None) -> None:
    """Revoke a key permanently. A running service rejects it, and ends its running streams, within a second."""
    checked = load(config)
    folder = key_store.existing(checked, state_dir)
    key = administer(checked, folder, lambda admin: admin.keys.revoke(key_id, admin.origin))
    _print_notice(f'Revoked {key.id} ("{key.name}").')


async def _create(admin: Administration, settings: KeySettings) -> tuple[ApiKey, str]:
    return await admin.keys.create(settings, admin.origin)


def _update(config: Config, state_dir: Path | None, key_id: str, changes: dict[str, Any]) -> ApiKey:
    folder = key_store.existing(config, state_dir)
    return administer(config, folder, lambda admin: admin.keys.update(key_id, changes, admin.origin))


def _chosen(option: str, values: list[str] | None, *, everything: bool) -> list[str] | None:
    """Returns the new values; None to keep the present ones. Raises CommandError if the options conflict."""
    if everything and values:
        raise CommandError(f"{option} and --all-{option[2:]}s exclude each other; give one of them")
    return [] if everything else values or None


def _print_secret(key: ApiKey, secret: str, *, json: bool) -> None:
    if json:
        print_json({"id": key.id, "key": secret} | key_fields(key))
    else:
        print(secret)
        _print_notice(f'This is the only time that the key "{key.name}" ({key.id}) is shown: keep it now.', sys.stderr)


def _print_notice(text: str, file: TextIO | None = None) -> None:
    """Prints a line, to stdout by default; to stderr beside a secret, so that stdout has the secret alone."""
    print(without_control_characters(text), file=file)
