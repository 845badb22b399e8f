"""The latest log lines of calls, in memory, where administrators look one up by the id of its request."""

from collections import deque
from itertools import islice
from typing import NamedTuple

_KEPT = 1_000
LONGEST = 16 * 1024
"""A longer line, in bytes, is in the log only: the memory of all lines is bounded."""


class RecentLine(NamedTuple):
    """A log line.

    Attributes:
        request_id: The id of the request that the line names.
        time: When it was written, RFC 3339 in UTC.
        line: The line as JSON.
    """

    request_id: str
    time: str
    line: bytes


class RecentLines:
    """The latest lines of one process.

    Attributes:
        append: Keeps a line, as the fields of a `RecentLine`, in place of the oldest one. It runs in every call, so it
            is the method of the container itself.
    """

    def __init__(self) -> None:
        self._lines = deque[tuple[str, str, bytes]](maxlen=_KEPT)
        self.append = self._lines.append

    def find(self, request_id: str, most: int) -> list[RecentLine]:
        """Returns the lines of a request, or of all requests for an empty id: at most so many, the latest first."""
        lines = list(self._lines)  # other threads write, too
        found = (line for line in reversed(lines) if not request_id or line[0] == request_id)
        return [RecentLine(*line) for line in islice(found, most)]
