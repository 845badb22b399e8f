"""The audit log in SQL."""

from collections.abc import Sequence
from typing import Any

import apsw

from parley.core.ports import AuditEvent, AuditFilter
from parley.stores import paging
from parley.stores.audit import event, event_row
from parley.stores.sqlite.rows import rows

_ADD = "INSERT INTO audit (id, time, actor, source, method, subject, changes) VALUES (?, ?, ?, ?, ?, ?, ?)"
_LIST = """
SELECT id, time, actor, source, method, subject, changes, place FROM audit
WHERE place < :before AND time >= :since AND (:subject IS NULL OR subject = :subject)
ORDER BY place DESC LIMIT :limit
"""
_END = 2**63 - 1


def add_event(db: apsw.Connection, added: AuditEvent) -> None:
    """Adds an event."""
    db.execute(_ADD, event_row(added))


def list_events(
    db: apsw.Connection, chosen: AuditFilter, page_size: int, after: Sequence[Any]
) -> tuple[list[AuditEvent], str | None]:
    """Reads a page, the latest event first. `after` is the sort key of the preceding row, or empty."""
    values = {
        "before": after[0] if after else _END,
        "since": chosen.since or 0,
        "subject": chosen.subject,
        "limit": page_size + 1,
    }
    found = rows(db, _LIST, values)
    page = found[:page_size]
    token = paging.encode(page[-1][-1]) if len(found) > page_size else None
    return [event(row[:-1]) for row in page], token
