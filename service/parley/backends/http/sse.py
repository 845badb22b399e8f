"""Incremental parser for server-sent events (WHATWG HTML, "Server-sent events")."""

MAX_EVENT = 1024 * 1024
"""Maximum length of a line and of an event, in bytes."""

_BOM = b"\xef\xbb\xbf"


class EventTooLong(ValueError):
    """A line or an event exceeds MAX_EVENT."""


class EventReader:
    """Splits a byte stream into events. Chunk boundaries may be anywhere; lines end in LF, CRLF or CR.

    Attributes:
        is_between_events: Whether the next byte begins an event.
    """

    __slots__ = (
        "_after_cr",
        "_data",
        "_data_size",
        "_first",
        "_name",
        "_partial",
        "_partial_size",
        "is_between_events",
    )

    def __init__(self) -> None:
        self.is_between_events = True
        self._partial: list[bytes] | None = None  # the chunks of an incomplete line
        self._partial_size = 0
        self._after_cr = False  # an LF at the start of the next chunk completes a CRLF
        self._first = True
        self._name = b""
        self._data: list[bytes] | None = None
        self._data_size = 0

    def feed(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """Returns the events that these bytes complete, as (name, data); the name is empty for most vendors.

        Raises:
            EventTooLong: If a line or an event exceeds MAX_EVENT.
        """
        # Nearly all pieces are one event of one `data` line.
        if self.is_between_events and data.startswith(b"data: ") and data.endswith(b"\n\n"):
            size = len(data)
            if data.find(b"\n") == size - 2 and b"\r" not in data and size <= MAX_EVENT:
                self._first = False
                return [(b"", data[6:-2])]
        events = self._feed(data)
        self.is_between_events = not (self._partial or self._data or self._name or self._after_cr or self._first)
        return events

    def end(self) -> list[tuple[bytes, bytes]]:
        """Returns the event that the end of the stream completes: some servers omit the last blank line."""
        return self.feed(b"\n\n")

    def _feed(self, data: bytes) -> list[tuple[bytes, bytes]]:
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        if not data:
            return []
        if b"\n" not in data and b"\r" not in data:
            self._keep(data)
            return []
        if self._partial:
            data = b"".join((*self._partial, data))
            self._partial = None
            self._partial_size = 0
        lines = data.splitlines()
        self._after_cr = data.endswith(b"\r")
        if not data.endswith((b"\n", b"\r")):
            self._keep(lines.pop())
        return self._events(lines)

    def _keep(self, data: bytes) -> None:
        if self._partial is None:
            self._partial = []
        self._partial.append(data)
        self._partial_size += len(data)
        if self._partial_size > MAX_EVENT:
            raise EventTooLong(f"a line of the stream is longer than {MAX_EVENT} bytes")

    def _events(self, lines: list[bytes]) -> list[tuple[bytes, bytes]]:
        if self._first:
            self._first = False
            lines[0] = lines[0].removeprefix(_BOM)
        events = []
        for line in lines:
            if line[:6] == b"data: ":
                self._add(line[6:])
            elif not line:
                if self._data:
                    data = self._data
                    events.append((self._name, data[0] if len(data) == 1 else b"\n".join(data)))
                    self._data = None
                    self._data_size = 0
                self._name = b""
            else:
                self._field(line)
        return events

    def _field(self, line: bytes) -> None:
        """Parses a line other than `data: …`; comments and other fields are ignored."""
        name, _, value = line.partition(b":")
        if name == b"data":
            self._add(value.removeprefix(b" "))
        elif name == b"event":
            self._name = value.removeprefix(b" ")

    def _add(self, value: bytes) -> None:
        if self._data is None:
            self._data = []
        self._data.append(value)
        self._data_size += len(value)
        if self._data_size > MAX_EVENT:
            raise EventTooLong(f"an event of the stream is longer than {MAX_EVENT} bytes")
