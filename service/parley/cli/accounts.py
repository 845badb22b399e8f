"""`parley accounts`: lists and changes accounts, directly in the store, without a running service."""

from typing import Annotated

from cyclopts import App, Parameter

from parley.cli.shared import key_store
from parley.cli.shared.administration import LimitOption, NoLimitOption, administer, limit_change
from parley.cli.shared.key_output import account_fields, limits_text, moment, print_account, print_json
from parley.cli.shared.options import ConfigOption, JsonOption, StateDirOption
from parley.cli.shared.terminal import print_table, without_control_characters
from parley.config.loader import load
from parley.core.administration import AccountSettings
from parley.supervisor import folders
from parley.supervisor.errors import CommandError

app = App(
    name="accounts",
    help="List, change, suspend and resume accounts. Needs no running service; a running one applies changes within a "
    "second.",
    help_epilogue="Examples:\n  parley accounts set acme --plan pro\n  parley accounts suspend acme",
    help_format="plaintext",
)

AccountName = Annotated[str, Parameter(name="NAME", help="The account, as `parley accounts list` shows it.")]


@app.command(name="list", help_epilogue="Examples:\n  parley accounts list\n  parley accounts list --json")
def list_(*, json: JsonOption = False, state_dir: StateDirOption = None, config: ConfigOption = None) -> None:
    """List all accounts with their plans. The first key of an account creates it."""
    checked = load(config)
    accounts = administer(checked, key_store.existing(checked, state_dir), lambda admin: admin.accounts.all())
    if json:
        print_json([account_fields(account) for account in accounts])
    else:
        rows = [
            (
                account.name,
                account.plan,
                limits_text(account.limits),
                "active" if account.suspended is None else f"suspended since {moment(account.suspended)}",
            )
            for account in accounts
        ]
        print_table(("Account", "Plan", "Limits", "State"), rows, folded=("Account", "Limits"))


@app.command(help_epilogue="Example:\n  parley accounts show acme")
def show(
    name: AccountName, /, *, json: JsonOption = False, state_dir: StateDirOption = None, config: ConfigOption = None
) -> None:
    """Show one account."""
    checked = load(config)
    account = administer(checked, key_store.existing(checked, state_dir), lambda admin: admin.accounts.get(name))
    if json:
        print_json(account_fields(account))
    else:
        print_account(account)


@app.command(help_epilogue="Example:\n  parley accounts create acme --plan pro --limit requests_per_minute=600")
def create(
    name: Annotated[str, Parameter(name="NAME", help="The name of the new account.")],
    /,
    *,
    plan: Annotated[
        str | None, Parameter(name="--plan", help="Its plan. Default: pro, or the first with access.")
    ] = None,
    limit: LimitOption = None,
    state_dir: StateDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Create an account without keys, for example for callers with a JWT."""
    checked = load(config)
    change = limit_change(limit)
    settings = AccountSettings(name, plan, change.values if change else {})
    folder = folders.state_dir(state_dir)
    print_account(administer(checked, folder, lambda admin: admin.accounts.create(settings, admin.origin)))


@app.command(
    name="set",
    help_epilogue="Examples:\n"
    "  parley accounts set acme --plan free\n"
    "  parley accounts set acme --limit requests_per_minute=600 --no-limit tokens_per_minute",
)
def set_(  # noqa: PLR0913 - the command's options
    name: AccountName,
    /,
    *,
    plan: Annotated[
        str | None,
        Parameter(name="--plan", help="The new plan, one of those of the configuration. Default: the present one."),
    ] = None,
    limit: LimitOption = None,
    no_limit: NoLimitOption = None,
    state_dir: StateDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Change the plan or the limits of an account and all its keys."""
    checked = load(config)
    limits = limit_change(limit, no_limit)
    if plan is None and limits is None:
        raise CommandError("nothing to change; give --plan, --limit or --no-limit")
    folder = key_store.existing(checked, state_dir)
    account = administer(
        checked, folder, lambda admin: admin.accounts.update(name, admin.origin, plan=plan, limits=limits)
    )
    print_account(account)


@app.command(help_epilogue="Example:\n  parley accounts suspend acme")
def suspend(name: AccountName, /, *, state_dir: StateDirOption = None, config: ConfigOption = None) -> None:
    """Suspend an account: its calls are refused, and its running streams end, within a second. Nothing is deleted."""
    checked = load(config)
    folder = key_store.existing(checked, state_dir)
    account = administer(checked, folder, lambda admin: admin.accounts.suspend(name, admin.origin))
    print(without_control_characters(f'Suspended the account "{account.name}".'))


@app.command(help_epilogue="Example:\n  parley accounts resume acme")
def resume(name: AccountName, /, *, state_dir: StateDirOption = None, config: ConfigOption = None) -> None:
    """End the suspension of an account."""
    checked = load(config)
    folder = key_store.existing(checked, state_dir)
    account = administer(checked, folder, lambda admin: admin.accounts.resume(name, admin.origin))
    print(without_control_characters(f'Resumed the account "{account.name}".'))
