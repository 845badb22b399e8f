"""The error bodies that are known, by code, type and words: the second half of the failure table.

The first row that fits decides. A row fits one of its `codes` (any code, type, status or reason of the body, in lower
case), or words that `words` finds in its messages, where the status is one of `statuses`. `source` says who sends it;
`example` is such a message. What no row fits is what its status says (`kinds`).
"""

from parley.backends.errors.known_bodies import caller, context, limits, operator, policy
from parley.backends.errors.known_bodies.rows import Row

__all__ = ["BODIES", "FALLBACK_ROWS", "Row"]

BODIES: tuple[Row, ...] = (*policy.ROWS, *limits.ROWS, *context.ROWS, *operator.ROWS, *caller.ROWS)
"""In their order: a quota is no rate limit, and neither is a context."""

FALLBACK_ROWS = caller.FALLBACK_ROWS
"""Looked at where a refusal names nothing of the request."""
