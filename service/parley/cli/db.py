"""`parley db`: upgrades the schema, backs up SQLite, and copies the data from SQLite to PostgreSQL."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TypeAlias

from cyclopts import App, Parameter

from parley.cli.shared.options import ConfigOption, StateDirOption
from parley.config import Config, PostgresConfig
from parley.config.loader import load
from parley.core.errors import StoreUnavailable
from parley.stores.open import oldest_worker, store_file, upgrade_store
from parley.supervisor import folders
from parley.supervisor.errors import CommandError

Progress: TypeAlias = Callable[[int, int], None]
_STEPS = 10

app = App(
    name="db",
    help="Upgrade the database, back it up, or move it from SQLite to PostgreSQL.",
    help_epilogue="Example:\n  parley db upgrade --config parley.yaml",
    help_format="plaintext",
)


@app.command(help_epilogue="Example:\n  parley db upgrade --config parley.yaml")
def upgrade(*, config: ConfigOption = None, state_dir: StateDirOption = None) -> None:
    """Upgrade the schema to the version that this Parley needs. Keep a backup.

    With SQLite stop Parley first. With PostgreSQL older workers may serve meanwhile and afterwards, if the new schema
    supports them; the output states it.
    """
    checked = load(config)
    folder = _folder(checked, state_dir)
    try:
        before, after = asyncio.run(upgrade_store(checked.store, folder))
    except StoreUnavailable as error:
        raise CommandError(error.cause or error.message) from error
    if before == after:
        print(f"Nothing to do: the schema has version {after}.")
        return
    print(f"Upgraded the schema from version {before} to {after}.")
    if before and isinstance(checked.store, PostgresConfig):
        oldest = oldest_worker()
        continues = f"Workers of version {oldest} and later continue to serve."
        print(continues if oldest <= before else "It does not support older workers: replace them now.")


@app.command(
    help_epilogue="Examples:\n"
    "  PARLEY_DB_TO=postgresql://parley:PASSWORD@db.internal/parley parley db copy --from parley.db\n"
    "  parley db copy --from parley.db --config parley.yaml   into the store of that file"
)
def copy(
    *,
    source: Annotated[Path, Parameter(name="--from", help="The SQLite file. Stop every Parley that uses it first.")],
    to: Annotated[
        str | None,
        Parameter(
            name="--to",
            env_var="PARLEY_DB_TO",
            help="The PostgreSQL database, postgresql://…; default: the store of --config. Put a password into the "
            "variable instead: other users of the machine can see arguments.",
        ),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Copy accounts, keys, sessions, stored replies and limits. An interrupted copy continues when started again."""
    from parley.stores.copy import CopyError
    from parley.stores.copy import copy as run

    url = _target(to, config)
    try:
        with _progress() as progress:
            counts = asyncio.run(run(source.expanduser(), url, progress))
    except CopyError as error:
        raise CommandError(str(error)) from error
    except StoreUnavailable as error:
        raise CommandError(error.cause or error.message) from error
    print("Copied; the numbers of rows in both databases are equal:")
    for count in counts:
        print(f"  {count.target} {count.name}")


@app.command(
    help_epilogue="Examples:\n"
    "  parley db backup --to /backup/parley-2026-11-27.db\n"
    "  parley db backup --config parley.yaml --to /backup/parley.db"
)
def backup(
    *,
    to: Annotated[Path, Parameter(name="--to", help="The new file; an existing one is not replaced.")],
    config: ConfigOption = None,
    state_dir: StateDirOption = None,
) -> None:
    """Copy the SQLite file while Parley runs, as one snapshot. For PostgreSQL use pg_dump."""
    from parley.stores.sqlite.backup import backup as run

    checked = load(config)
    source = store_file(checked.store, _folder(checked, state_dir))
    if source is None:
        raise CommandError("the store is a PostgreSQL database; back it up with pg_dump or pg_basebackup")
    if not source.exists():
        raise CommandError(f"{source} does not exist; name the configuration or the state folder of the store")
    target = to.expanduser().absolute()
    try:
        run(source, target)
    except StoreUnavailable as error:
        raise CommandError(error.cause or error.message) from error
    print(f"Copied {source} to {target} ({target.stat().st_size:,} bytes).")


def _folder(config: Config, chosen: Path | None) -> Path:
    """Returns the state folder; creates it only if the store is a file in it."""
    if store_file(config.store, Path()) is None:
        return Path()
    return folders.state_dir(chosen)


def _target(to: str | None, config: Path | None) -> str:
    """Returns the URL of the PostgreSQL database to copy to. Raises CommandError."""
    if to is not None:
        if not to.startswith(("postgresql://", "postgres://")):
            raise CommandError("--to must be a URL: postgresql://USER:PASSWORD@HOST:PORT/NAME")
        return to
    store = load(config).store
    if not isinstance(store, PostgresConfig):
        raise CommandError(
            "name the PostgreSQL database with --to, or a file that configures it as the store with --config"
        )
    if store.pooling == "transaction":
        raise CommandError("a copy cannot go through a pooler in transaction mode; name the server itself with --to")
    return store.url


@contextmanager
def _progress() -> Iterator[Progress]:
    """Shows a progress bar on a terminal; otherwise prints a line for every tenth of the sessions."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("sessions"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("sessions", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _lines() -> Progress:
    last_tenth = -1

    def report(done: int, total: int) -> None:
        nonlocal last_tenth
        tenth = _STEPS * done // total if total else _STEPS
        if tenth > last_tenth:
            last_tenth = tenth
            print(f"{done} of {total} sessions", file=sys.stderr, flush=True)

    return report
