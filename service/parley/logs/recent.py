"""The latest log lines of calls, in memory, where administrators look one up by the id of its request."""

import threading
from collections.abc import Iterator
from io import BytesIO
from itertools import islice
from typing import NamedTuple

import orjson

BYTES = 768 * 1024
"""The size of all lines that are kept, about a thousand."""
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

    They are copied into one piece of memory, which is written from its beginning again when it is full. As objects,
    lines would keep the memory between them from being released, several times their size.
    """

    def __init__(self) -> None:
        self._ring, self._lock = BytesIO(), threading.Lock()

    def append(self, line: bytes) -> None:
        """Keeps a line of JSON, with its line feed, in place of the oldest ones."""
        with self._lock:
            if self._ring.tell() + len(line) > BYTES:
                self._ring.truncate()
                self._ring.seek(0)
            self._ring.write(line)

    def find(self, request_id: str, most: int) -> list[RecentLine]:
        """Returns the lines of a request, or of all requests for an empty id: at most so many, the latest first."""
        return list(islice(self._of(request_id), most))

    def _of(self, request_id: str) -> Iterator[RecentLine]:
        """Yields the lines of a request, or of all for an empty id, the latest first."""
        with self._lock:
            kept, end = self._ring.getvalue(), self._ring.tell()
        oldest, latest = kept[end:].split(b"\n")[1:-1], kept[:end].split(b"\n")[:-1]
        part = orjson.dumps(request_id)[1:-1]  # most other lines need no parsing
        for line in reversed([*oldest, *latest]):  # the oldest one has been overwritten in part
            if part not in line:
                continue
            event = orjson.loads(line)
            if not request_id or event["request_id"] == request_id:
                yield RecentLine(event["request_id"], event["timestamp"], line)
