"""One row of the table of known error bodies."""

import re
from dataclasses import dataclass, field

from parley.backends.errors.kinds import Kind

ANY = frozenset(range(300, 600))
REFUSALS = frozenset({400, 403, 404, 409, 410, 412, 413, 422, 424, 429, 500, 501, 503})
"""The statuses that servers use to reject a single request."""
LIMITS = frozenset({400, 403, 413, 424, 429, 498, 500, 503})
"""The statuses that servers use to report an exceeded limit."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table."""

    kind: Kind
    """What failed."""
    source: str
    """The servers that send it, or its documentation."""
    example: str = ""
    """A message that `pattern` matches."""
    codes: frozenset[str] = frozenset()
    """Codes, types, statuses and reasons, in lower case."""
    pattern: re.Pattern[str] | None = None
    """Matches the messages of the body."""
    statuses: frozenset[int] = field(default=REFUSALS)
    """The HTTP statuses to which the row applies."""

    def matches(self, status: int, codes: frozenset[str], text: str) -> bool:
        """Returns whether the row matches; `codes` are in lower case, `text` is all messages of the body."""
        if status not in self.statuses:
            return False
        return not self.codes.isdisjoint(codes) or (self.pattern is not None and self.pattern.search(text) is not None)


def by_code(kind: Kind, source: str, codes: str, statuses: frozenset[int] = REFUSALS) -> Row:
    """Creates a row that matches any of `codes`, which are separated by spaces."""
    return Row(kind, source, codes=frozenset(codes.split()), statuses=statuses)


def by_pattern(kind: Kind, source: str, pattern: str, example: str, statuses: frozenset[int] = REFUSALS) -> Row:
    """Creates a row that matches messages by a case-insensitive regular expression."""
    return Row(kind, source, example, pattern=re.compile(pattern, re.IGNORECASE), statuses=statuses)
