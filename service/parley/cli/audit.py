"""`parley audit`: shows who changed keys and accounts, directly from the store, without a running service."""

import json as jsons
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from cyclopts import Parameter

from parley.cli.shared import administration, key_store
from parley.cli.shared.administration import administer
from parley.cli.shared.key_output import moment, print_json
from parley.cli.shared.options import ConfigOption, JsonOption, StateDirOption
from parley.cli.shared.terminal import print_table
from parley.config.loader import load
from parley.core.ports import AuditEvent, AuditFilter, AuditStore

_PAGE_SIZE = 1000


def audit(
    *,
    since: Annotated[
        str | None, Parameter(name="--since", help="Only changes of this time up to now: 12h, 7d. Default: all.")
    ] = None,
    subject: Annotated[
        str | None, Parameter(name="--subject", help="Only changes of this key or account: key:ID or account:NAME.")
    ] = None,
    json: JsonOption = False,
    state_dir: StateDirOption = None,
    config: ConfigOption = None,
) -> None:
    """Show the changes of keys and accounts, the latest first: when, by whom, from where, and what changed."""
    checked = load(config)
    start = None if since is None else int(time.time() - administration.seconds(since, "--since"))
    chosen = AuditFilter(max(start, 0) if start is not None else None, subject)
    folder = key_store.existing(checked, state_dir)
    events = administer(checked, folder, lambda admin: _all(admin.audit, chosen))
    if json:
        print_json([_fields(event) for event in events])
    else:
        rows = [
            (moment(event.time), event.actor, event.source, event.method, event.subject, _changes(event))
            for event in events
        ]
        names = ("Time", "Actor", "Source", "Method", "Subject", "Changes")
        print_table(names, rows, folded=("Actor", "Subject", "Changes"))


async def _all(store: AuditStore, chosen: AuditFilter) -> list[AuditEvent]:
    return [event async for page in _pages(store, chosen) for event in page]


async def _pages(store: AuditStore, chosen: AuditFilter) -> AsyncIterator[list[AuditEvent]]:
    token: str | None = None
    while True:
        page, token = await store.list_audit_events(chosen, page_size=_PAGE_SIZE, page_token=token)
        yield page
        if token is None:
            return


def _fields(event: AuditEvent) -> dict[str, Any]:
    return {
        "id": event.id,
        "time": event.time,
        "actor": event.actor,
        "source": event.source,
        "method": event.method,
        "subject": event.subject,
        "changes": {name: {"before": before, "after": after} for name, (before, after) in event.changes.items()},
    }


def _changes(event: AuditEvent) -> str:
    """Returns the changes as `plan: free → pro; …`."""
    return "; ".join(f"{name}: {_text(before)} → {_text(after)}" for name, (before, after) in event.changes.items())


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else jsons.dumps(value, ensure_ascii=False)
