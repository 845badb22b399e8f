"""Conversion between audit events and rows, shared by the databases."""

from typing import Any

import orjson

from parley.core.ports import AuditEvent

EVENT_COLUMNS = "id, time, actor, source, method, subject, changes"


def event_row(event: AuditEvent) -> tuple[Any, ...]:
    """Returns a row of `EVENT_COLUMNS`."""
    changes = orjson.dumps(event.changes).decode()
    return event.id, event.time, event.actor, event.source, event.method, event.subject, changes


def event(row: Any) -> AuditEvent:
    """Converts a row of `EVENT_COLUMNS`."""
    identifier, time, actor, source, method, subject, changes = row
    pairs = {name: (before, after) for name, (before, after) in orjson.loads(changes).items()}
    return AuditEvent(identifier, time, actor, source, method, subject, pairs)
