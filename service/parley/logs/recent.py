"""The latest log lines of calls, in memory, where administrators look one up by the id of its request."""

import threading
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

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
        self._ring, self._end, self._lock = bytearray(), 0, threading.Lock()

    def append(self, line: tuple[str, str, bytes]) -> None:
        """Keeps a line, as the fields of a `RecentLine`, in place of the oldest ones."""
        request_id, time, text = line
        record = f"{request_id}\t{time}\t".encode() + text + b"\n"
        with self._lock:
            start, end = self._end, self._end + len(record)
            if end > BYTES:
                del self._ring[start:]
                start, end = 0, len(record)
            self._ring[start:end] = record
            self._end = end

    def find(self, request_id: str, most: int) -> list[RecentLine]:
        """Returns the lines of a request, or of all requests for an empty id: at most so many, the latest first."""
        return list(islice((line for line in self._all() if not request_id or line.request_id == request_id), most))

    def _all(self) -> Iterator[RecentLine]:
        """Yields all lines, the latest first."""
        with self._lock:
            latest, oldest = bytes(self._ring[: self._end]), bytes(self._ring[self._end :])
        records = [*oldest.split(b"\n")[1:-1], *latest.split(b"\n")[:-1]]  # the first has been overwritten in part
        for record in reversed(records):
            request_id, time, text = record.split(b"\t", 2)
            yield RecentLine(request_id.decode(), time.decode(), text)
