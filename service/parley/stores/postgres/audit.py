"""The audit log in SQL."""

from collections.abc import Sequence
from typing import Any

from parley.core.ports import AuditEvent, AuditFilter
from parley.stores import paging
from parley.stores.audit import EVENT_COLUMNS, event, event_row
from parley.stores.postgres.database import Connection

_ADD = f"INSERT INTO parley.audit ({EVENT_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7)"
_LIST = f"""
SELECT {EVENT_COLUMNS}, place FROM parley.audit
WHERE place < $1 AND time >= $2 AND ($3::text IS NULL OR subject = $3)
ORDER BY place DESC LIMIT $4
"""
_END = 2**63 - 1


async def add_event(db: Connection, added: AuditEvent) -> None:
    """Adds an event."""
    await db.execute(_ADD, *event_row(added))


async def list_events(
    db: Connection, chosen: AuditFilter, page_size: int, after: Sequence[Any]
) -> tuple[list[AuditEvent], str | None]:
    """Reads a page, the latest event first. `after` is the sort key of the preceding row, or empty."""
    before = after[0] if after else _END
    found = await db.fetch(_LIST, before, chosen.since or 0, chosen.subject, page_size + 1)
    page = found[:page_size]
    token = paging.encode(page[-1]["place"]) if len(found) > page_size else None
    return [event(tuple(row)[:-1]) for row in page], token
