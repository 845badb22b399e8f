"""`parley sessions update`, `add` and `import`: commands that change sessions of the store."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

from cyclopts import Parameter

from parley.cli.sessions import AccountOption, IdArgument, app, read_labels, run
from parley.cli.shared.options import ConfigOption, StateDirOption
from parley.config import Model
from parley.config.loader import load
from parley.core.errors import ModelNotFound
from parley.core.messages import extra_fields
from parley.core.messages.ids import canonical_session_id
from parley.core.messages.json_proto import fill
from parley.core.ports import Caller, Store
from parley.core.ports.turns import UNLIMITED_STORAGE
from parley.core.sessions import access, account_import
from parley.core.sessions.additions import Additions
from parley.supervisor.errors import CommandError
from parley.v1.sessions_pb2 import AddSessionMessagesRequest, Session

_CALLER = "cli"

FileArgument = Annotated[Path, Parameter(name="FILE", help="The file, or - for the standard input.")]


@app.command(
    help_epilogue="Examples:\n  parley sessions update 0199c1b2-7d3e-7a40-9f51-3b8e2c6d4a10 --title 'Order 4711'\n"
    "  parley sessions update ticket-17 --label team=blue --remove-label draft"
)
def update(  # noqa: PLR0913 - the command's options
    session_id: IdArgument,
    /,
    *,
    title: Annotated[str | None, Parameter(name="--title", help="The title; empty to remove it.")] = None,
    label: Annotated[
        list[str] | None, Parameter(name="--label", negative=(), help="A label to set: NAME=VALUE. Can be repeated.")
    ] = None,
    remove_label: Annotated[
        list[str] | None, Parameter(name="--remove-label", negative=(), help="A label to remove. Can be repeated.")
    ] = None,
    account: AccountOption = "default",
    state_dir: StateDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Change the title and the labels of a session."""
    labels: dict[str, str | None] = {name: value or "" for name, value in read_labels(label).items()}
    labels |= dict.fromkeys(remove_label or ())

    async def change(store: Store) -> Session:
        key = await access.find_key(store, account, canonical_session_id(session_id))
        return await store.update_session(account, key, title, labels)

    run(state_dir, config, change)


@app.command(
    help_epilogue='Example:\n  echo \'{"role": "user", "content": "By phone: call me back"}\' | '
    "parley sessions add 0199c1b2-7d3e-7a40-9f51-3b8e2c6d4a10 -"
)
def add(  # noqa: PLR0913 - the command's options
    session_id: IdArgument,
    file: FileArgument,
    /,
    *,
    model: Annotated[
        str | None, Parameter(name="--model", help="The model of a new session, whose callers choose the ids.")
    ] = None,
    account: AccountOption = "default",
    state_dir: StateDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Add messages (JSON Lines) to a session as a completed turn, without asking a model."""
    request = AddSessionMessagesRequest(session_id=canonical_session_id(session_id), model=model)
    with _opened(file) as lines:
        for number, line in enumerate(lines, 1):
            _add_message(request, number, line)
    if not request.messages:
        raise CommandError("there are no messages to add")
    models = {one.id: one for one in load(config).models}

    def find_model(_caller: Caller, name: str) -> Model:
        if name not in models:
            raise ModelNotFound(name)
        return models[name]

    async def write(store: Store) -> int:
        additions = Additions(store, find_model)
        return (await additions.add(request, Caller(account, _CALLER), UNLIMITED_STORAGE, None)).turn

    print(f"Added turn {run(state_dir, config, write)}.")


@app.command(name="import", help_epilogue="Example:\n  parley sessions import acme.jsonl --account acme")
def import_(
    file: FileArgument,
    /,
    *,
    account: AccountOption = "default",
    state_dir: StateDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Add the sessions of `parley sessions export --all` to an account. Sessions that it has are skipped."""
    counts = account_import.Counts()

    async def read(store: Store) -> None:
        with _opened(file) as lines:
            caller = Caller(account, _CALLER)
            await account_import.import_sessions(store, caller, lines, UNLIMITED_STORAGE, counts)

    try:
        run(state_dir, config, read)
    finally:
        print(f"Imported {counts.imported} sessions; skipped {counts.skipped} that the account has.", file=sys.stderr)


@contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    if str(file) == "-":
        yield sys.stdin.buffer
        return
    try:
        opened = file.open("rb")
    except OSError as error:
        raise CommandError(f"{file}: {error.strerror}") from error
    with opened:
        yield opened


def _add_message(request: AddSessionMessagesRequest, number: int, line: bytes) -> None:
    try:
        data = extra_fields.loads(line)
        if not isinstance(data, dict) or not isinstance(data.get("role"), str):
            raise ValueError("a message must be an object with a `role`")  # noqa: TRY301, TRY004 - reported below
        fill(request.messages.add(), data)
    except ValueError as error:
        raise CommandError(f"line {number}: {error}") from error
