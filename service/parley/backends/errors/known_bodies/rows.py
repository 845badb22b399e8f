"""One row of the table of known error bodies."""

import re
from dataclasses import dataclass, field

from parley.backends.errors.kinds import Kind

ANY = frozenset(range(300, 600))
REFUSALS = frozenset({400, 403, 404, 409, 410, 412, 413, 422, 424, 429, 500, 501, 503})
"""The statuses with which servers refuse one request."""
LIMITS = frozenset({400, 403, 413, 424, 429, 498, 500, 503})
"""The statuses with which servers say that a limit is reached."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table."""

    kind: Kind
    source: str
    example: str = ""
    codes: frozenset[str] = frozenset()
    pattern: re.Pattern[str] | None = None
    statuses: frozenset[int] = field(default=REFUSALS)

    def matches(self, status: int, codes: frozenset[str], text: str) -> bool:
        """Tells whether a body is one of this row."""
        if status not in self.statuses:
            return False
        return not self.codes.isdisjoint(codes) or (self.pattern is not None and self.pattern.search(text) is not None)


def by_code(kind: Kind, source: str, codes: str, statuses: frozenset[int] = REFUSALS) -> Row:
    """Makes a row for any of the codes, which are separated by spaces."""
    return Row(kind, source, codes=frozenset(codes.split()), statuses=statuses)


def by_pattern(kind: Kind, source: str, pattern: str, example: str, statuses: frozenset[int] = REFUSALS) -> Row:
    """Makes a row for words that a regular expression finds."""
    return Row(kind, source, example, pattern=re.compile(pattern, re.IGNORECASE), statuses=statuses)
