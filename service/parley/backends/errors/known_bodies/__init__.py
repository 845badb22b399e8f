"""The second half of the failure table: known error bodies, by code, type and message.

The first matching row decides. A row matches if the status is in `statuses`, and either the body has one of `codes`
(any code, type, status or reason, in lower case) or `pattern` matches its messages. `source` names the servers that
send it; `example` is such a message. If no row matches, the status decides (`kinds`).
"""

from parley.backends.errors.known_bodies import caller, context, limits, operator, policy
from parley.backends.errors.known_bodies.rows import Row

__all__ = ["BODIES", "FALLBACK_ROWS", "Row"]

BODIES: tuple[Row, ...] = (*policy.ROWS, *limits.ROWS, *context.ROWS, *operator.ROWS, *caller.ROWS)
"""All rows in order of precedence; for example, a quota row precedes the rate limits that its message also matches."""

FALLBACK_ROWS = caller.FALLBACK_ROWS
"""Rows tried if a rejection names no field of the request."""
