"""`parley cache`: shows and clears the answers that models with a cache keep. It needs no running service."""

from typing import Annotated

from cyclopts import App, Parameter

from parley.cli.shared import key_store
from parley.cli.shared.key_output import print_json
from parley.cli.shared.options import ConfigOption, JsonOption, StateDirOption
from parley.cli.shared.terminal import print_table
from parley.config.loader import load
from parley.core.ports import Store
from parley.supervisor.errors import CommandError

_ROWS = 100  # of one transaction, so that other transactions wait only briefly

app = App(
    name="cache",
    help="Show how many answers the caches of models have, by account; clear them.",
    help_epilogue="Examples:\n  parley cache\n  parley cache clear --model faq\n  parley cache clear --account acme",
    help_format="plaintext",
)


@app.default
def cache(*, json: JsonOption = False, state_dir: StateDirOption = None, config: ConfigOption = None) -> None:
    """Show how many answers the caches of models have, by account; clear them."""
    checked = load(config)
    folder = key_store.existing(checked, state_dir, "answers", "")
    sizes = key_store.run(checked, folder, lambda store: store.cache_sizes())
    if json:
        print_json([one._asdict() for one in sizes])
        return
    rows = [(one.account, one.model, f"{one.answers:,}", f"{one.bytes:,}") for one in sizes]
    print_table(
        ("Account", "Model", "Answers", "Bytes"), rows, folded=("Account", "Model"), numbers=("Answers", "Bytes")
    )


@app.command(
    help_epilogue="Examples:\n"
    "  parley cache clear --model faq\n"
    "  parley cache clear --account acme --model faq\n"
    "  parley cache clear --all"
)
def clear(
    *,
    model: Annotated[str | None, Parameter(name="--model", help="Only answers of this model.")] = None,
    account: Annotated[
        str | None, Parameter(name="--account", help="Only answers that calls of this account got.")
    ] = None,
    all_: Annotated[bool, Parameter(name="--all", negative=(), help="All answers.")] = False,
    state_dir: StateDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Remove kept answers, by model, by account, by both, or all. Later calls get new answers."""
    if all_ == (model is not None or account is not None):
        raise CommandError("name the answers to remove: --model, --account or both; or --all")
    checked = load(config)
    folder = key_store.existing(checked, state_dir, "answers", "")
    removed = key_store.run(checked, folder, lambda store: _clear(store, account, model))
    print(f"Removed {removed:,} {'answer' if removed == 1 else 'answers'}.")


async def _clear(store: Store, account: str | None, model: str | None) -> int:
    removed = 0
    while count := await store.clear_answers(account, model, _ROWS):
        removed += count
    return removed
