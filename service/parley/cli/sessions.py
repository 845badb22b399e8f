"""`parley sessions`: list, search, show, export and delete sessions. It reads the store and needs no running service.

`session_changes` has the other commands.
"""

import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TypeVar

from cyclopts import App, Parameter
from cyclopts.validators import Number

from parley.cli.shared import key_store, receipts
from parley.cli.shared.options import ConfigOption, JsonOption, StateDirOption
from parley.cli.shared.terminal import json_text, message_text, print_table, without_control_characters
from parley.config.loader import load
from parley.core.errors import InvalidRequest
from parley.core.messages.ids import canonical_session_id
from parley.core.messages.proto_json import dumps, from_message
from parley.core.ports import SessionFilter, Store
from parley.core.sessions import access, account_export
from parley.core.sessions import export as lines
from parley.core.sessions.labels import read_filter
from parley.logs.characters import escape_controls
from parley.supervisor.errors import CommandError
from parley.v1.sessions_pb2 import Session

T = TypeVar("T")
_PAGE = 100
_TABLE_LIMIT = 50
_COMPLETED = "completed"

app = App(
    name="sessions",
    help="List, search, show, change, export, import and delete sessions. Needs no running service.",
    help_epilogue="Example:\n  parley sessions list",
    help_format="plaintext",
)

AccountOption = Annotated[str, Parameter(name="--account", help="The account that owns the sessions.")]
IdArgument = Annotated[str, Parameter(name="ID", help="The session's id, as `parley sessions list` shows it.")]


@app.command(
    name="list",
    help_epilogue="Examples:\n  parley sessions list --model smollm2\n  parley sessions list --search 'refund order*' "
    "--label team=blue\n  parley sessions list --json | jq -r '.[].id'",
)
def list_(  # noqa: PLR0913 - the command's options
    *,
    model: Annotated[str | None, Parameter(name="--model", help="Only sessions of this model.")] = None,
    search: Annotated[
        str | None,
        Parameter(
            name="--search",
            help="Only sessions with all of these words in a turn, or the text in the title. WORD* is a beginning.",
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        Parameter(
            name="--label", negative=(), help="Only sessions with this label: NAME=VALUE, or NAME. Can be repeated."
        ),
    ] = None,
    limit: Annotated[
        int | None,
        Parameter(
            name="--limit",
            validator=Number(gte=1),
            help=f"The largest number of sessions. Default: {_TABLE_LIMIT}, or all with --json.",
        ),
    ] = None,
    account: AccountOption = "default",
    json: JsonOption = False,
    state_dir: StateDirOption = None,
    config: ConfigOption = None,
) -> None:
    """List an account's sessions, the most recently used first."""
    max_count = limit or (sys.maxsize if json else _TABLE_LIMIT)
    models = None if model is None else frozenset({model})
    chosen = SessionFilter(models, labels=read_labels(label), query=search)
    found = run(state_dir, config, lambda store: _listed(store, account, chosen, max_count + 1))
    if json:
        _print_json([from_message(session) for session in found[:max_count]])
        return
    _print_table(found[:max_count])
    if len(found) > max_count:
        print(f"There are more; --limit {max_count * 10} shows up to {max_count * 10}.", file=sys.stderr)


@app.command(
    help_epilogue="Examples:\n"
    "  parley sessions show 0199c1b2-7d3e-7a40-9f51-3b8e2c6d4a10\n"
    "  parley sessions show 0199c1b2-7d3e-7a40-9f51-3b8e2c6d4a10 --json | jq '.messages[0]'"
)
def show(
    session_id: IdArgument,
    /,
    *,
    account: AccountOption = "default",
    json: JsonOption = False,
    state_dir: StateDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Print a session's conversation; below each answer, the attempts with their duration, tokens and cost."""
    session_id = canonical_session_id(session_id)

    async def read(store: Store) -> tuple[Session, list[dict[str, Any]]]:
        key = await access.find_key(store, account, session_id)
        session = await store.get_session(account, key)
        return session, [lines.fields(message) async for message in lines.messages(store, account, key)]

    session, messages = run(state_dir, config, read)
    if json:
        _print_json(from_message(session) | {"messages": messages})
    else:
        _print_conversation(session, messages)


@app.command(
    help_epilogue="Examples:\n  parley sessions export 0199c1b2-7d3e-7a40-9f51-3b8e2c6d4a10 > session.jsonl\n"
    "  parley sessions export --all --account acme > acme.jsonl"
)
def export(
    session_id: Annotated[str | None, Parameter(name="ID", help="The session's id; none with --all.")] = None,
    /,
    *,
    every: Annotated[
        bool, Parameter(name="--all", negative=(), help="All sessions of the account, for `parley sessions import`.")
    ] = False,
    account: AccountOption = "default",
    state_dir: StateDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Print a session as JSON Lines, a message per line. Exit with 1 if the output is incomplete."""
    if every == (session_id is not None):
        raise CommandError("name one session, or use --all")

    async def write(store: Store) -> None:
        if session_id is None:
            exported = account_export.lines(store, account, SessionFilter())
        else:
            key = await access.find_key(store, account, canonical_session_id(session_id))
            exported = lines.lines(store, account, key)
        async with aclosing(exported) as found:
            async for line in found:
                sys.stdout.buffer.write(escape_controls(line))
        sys.stdout.buffer.flush()

    try:
        run(state_dir, config, write)
    except BrokenPipeError:  # as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


@app.command(help_epilogue="Example:\n  parley sessions delete 0199c1b2-7d3e-7a40-9f51-3b8e2c6d4a10")
def delete(
    session_ids: Annotated[list[str], Parameter(name="ID", help="The sessions' ids.", negative=())],
    /,
    *,
    yes: Annotated[bool, Parameter(name="--yes", negative=(), help="Delete without confirmation.")] = False,
    account: AccountOption = "default",
    state_dir: StateDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Delete sessions with all their messages. A session with a turn in progress is not deleted."""
    ids = list(dict.fromkeys(canonical_session_id(text) for text in session_ids))

    async def find(store: Store) -> None:
        for session_id in ids:
            await access.at_key(account, session_id, lambda key: store.get_session(account, key))

    async def remove(store: Store) -> None:
        for session_id in ids:
            await access.at_key(account, session_id, lambda key: store.delete_session(account, key))
            print(f"Deleted {session_id}.")
        while await store.purge():
            pass

    run(state_dir, config, find)  # every id is checked before the first deletion
    if yes or _confirmed(len(ids)):
        run(state_dir, config, remove)


def _confirmed(count: int) -> bool:
    """Asks for confirmation. Raises CommandError if stdin is not a terminal."""
    if not sys.stdin.isatty():
        raise CommandError("nothing was deleted: stdin is not a terminal; add --yes to delete without confirmation")
    what = "the session" if count == 1 else f"{count} sessions"
    return input(f"Delete {what} permanently? [y/N] ").strip().lower() in {"y", "yes"}


def run(folder: Path | None, config: Path | None, work: Callable[[Store], Awaitable[T]]) -> T:
    """Runs `work` on the store of a state folder. Raises CommandError, also if there is no store yet."""
    checked = load(config)
    return key_store.run(checked, key_store.existing(checked, folder, "sessions", ""), work)


def read_labels(labels: list[str] | None) -> dict[str, str | None]:
    """Returns the labels of options, NAME=VALUE or NAME. Raises CommandError."""
    try:
        return read_filter(labels or ())
    except InvalidRequest as error:
        raise CommandError("--label must be NAME=VALUE or NAME") from error


async def _listed(store: Store, account: str, chosen: SessionFilter, max_count: int) -> list[Session]:
    """Reads up to `max_count` sessions, page by page."""
    while chosen.query is not None and not await store.index_sessions(account):
        pass
    found: list[Session] = []
    token: str | None = None
    while len(found) < max_count:
        size = min(_PAGE, max_count - len(found))
        page, token = await store.list_sessions(account, chosen, page_size=size, page_token=token)
        found += page
        if token is None:
            break
    return found


def _print_json(value: Any) -> None:
    print(json_text(dumps(value)))


def _print_table(sessions: list[Session]) -> None:
    titled = any(session.title for session in sessions)
    rows = [
        (
            session.id,
            session.model,
            *((session.title,) if titled else ()),
            str(session.turn_count),
            _time(session.created),
            _time(session.updated),
        )
        for session in sessions
    ]
    names = ("ID", "Model", *(("Title",) if titled else ()), "Turns", "Created", "Latest turn")
    print_table(names, rows, folded=("Model", "Title")[: 1 + titled], numbers=("Turns",))


def _print_conversation(session: Session, messages: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console(highlight=False)
    origin = f" · forked from {session.forked_from}" if session.HasField("forked_from") else ""
    console.print(Text(f"{session.id} · {without_control_characters(session.model)}{origin}", "bold"))
    labels = [f"{name}={value}" for name, value in sorted(session.labels.items())]
    for line in filter(None, (session.title, ", ".join(labels))):
        console.print(Text(without_control_characters(line)))
    turn = 0
    for message in messages:
        if message["turn"] != turn:
            turn = message["turn"]
            console.print(_turn_line(message))
        console.print(
            Text(
                without_control_characters(message.get("role", "")),
                "cyan" if message.get("role") == "user" else "green",
            )
        )
        console.print(Padding(Text(message_text(message)), (0, 0, 0, 2)))
        for line in receipts.lines(message.get("receipt", {})):
            console.print(Padding(Text(line, "dim"), (0, 0, 0, 2)))


def _turn_line(message: dict[str, Any]) -> Any:
    """Returns the heading of a turn: its number, its start, and its state unless completed."""
    from rich.text import Text

    state = "" if message["state"] == _COMPLETED else f" · {message['state']}"
    reason = f" ({without_control_characters(message['reason'])})" if "reason" in message else ""
    style = "yellow" if state else "dim"
    return Text(f"\nTurn {message['turn']} · {_time(message['created'])}{state}{reason}", style)


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")
