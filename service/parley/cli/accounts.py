"""`parley accounts`: lists accounts and changes their plans, directly in the store, without a running service."""

import json as jsons
from typing import Annotated

from cyclopts import App, Parameter

from parley.cli.shared import key_store
from parley.cli.shared.checks import require_plan
from parley.cli.shared.options import ConfigOption, JsonOption, StateDirOption
from parley.cli.shared.terminal import print_table
from parley.config import load
from parley.supervisor.errors import CommandError

app = App(
    name="accounts",
    help="List accounts and change their plans. Needs no running service.",
    help_epilogue="Example:\n  parley accounts set acme --plan free",
    help_format="plaintext",
)


@app.command(name="list", help_epilogue="Examples:\n  parley accounts list\n  parley accounts list --json")
def list_(*, json: JsonOption = False, state_dir: StateDirOption = None, config: ConfigOption = None) -> None:
    """List all accounts with their plans. The first key of an account creates it."""
    checked = load(config)
    accounts = key_store.run(checked, key_store.existing(checked, state_dir), lambda store: store.list_accounts())
    if json:
        print(jsons.dumps([{"name": account.name, "plan": account.plan} for account in accounts], ensure_ascii=False))
    else:
        print_table(("Account", "Plan"), [(account.name, account.plan) for account in accounts], folded=("Account",))


@app.command(name="set", help_epilogue="Example:\n  parley accounts set acme --plan free")
def set_(
    name: Annotated[str, Parameter(name="NAME", help="The account, as `parley accounts list` shows it.")],
    /,
    *,
    plan: Annotated[
        str, Parameter(name="--plan", help="The new plan. Default plans: free, whose keys have no access, and pro.")
    ],
    state_dir: StateDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Change the plan of an account and all its keys. A running service applies it within a second."""
    checked = load(config)
    require_plan(plan, checked)
    folder = key_store.existing(checked, state_dir)
    if not key_store.run(checked, folder, lambda store: store.set_plan(name, plan)):
        raise CommandError(f'no account is named "{name}"; see `parley accounts list`')
    print(f'The account "{name}" is on the plan {plan}.')
