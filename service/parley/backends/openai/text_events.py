"""Fast path for the events of a stream that differ in nothing but their text, as nearly all do."""

import re

import orjson

from parley.core.ports.plain_text import MAX_TEXT_SIZE, TextKind

_STARTS = frozenset({b"data: ", b"data:"})
_LF, _CRLF = b"\n\n", b"\r\n\r\n"
_TEXT = re.compile(rb'"(content|reasoning_content|reasoning)"\s*:\s*"')
_PADDING = re.compile(rb'"obfuscation"\s*:\s*"')  # OpenAI's, of random letters and digits, to hide the length of tokens
_ESCAPED_LETTER = b"\\u"  # in a key it hides the key from `_TEXT`
_MAX_USELESS = 8  # servers whose events differ in more than text and padding gain nothing
_USEFUL = 4  # events that pay for the search of the text in one


class TextEvents:
    """Recognises events whose bytes equal those of an earlier text event before and after the text.

    Such an event means the same except for the text, which is the rest of a JSON string. So only that string is parsed,
    and the texts of a run of events are parsed as one. The padding of an event may differ, too, if it follows the text.

    Attributes:
        is_known: Whether an event was learned.
        may_learn: Whether another event may be learned.
        kind: The kind of the text of the event that was learned: a field of Delta.
    """

    __slots__ = (
        "_after_padding",
        "_after_text",
        "_end",
        "_head",
        "_matches",
        "_tail",
        "_useless",
        "is_known",
        "kind",
        "may_learn",
    )

    def __init__(self) -> None:
        self.is_known = False
        self.may_learn = True
        self.kind: TextKind = "content"
        self._end = _LF
        self._head = self._tail = self._after_text = b""
        self._after_padding = b""  # then `_tail` is what is between text and padding
        self._useless = 0  # events learned in vain since the latest useful one
        self._matches = 0  # of the event that was learned

    def learn(self, received: bytes, event: bytes) -> None:
        """Learns a text event, which is valid JSON with one choice whose delta has only text of one kind.

        Args:
            received: The bytes that were received.
            event: The data of the event in them.
        """
        self.forget()
        start = received[: len(received) - len(event) - len(self._end)]
        if not self.may_learn or b'\\"' in event or start not in _STARTS or received != start + event + self._end:
            return
        # Without an escaped quote no JSON string contains one: a match is a key, and the next quote ends its text.
        first, *others = _TEXT.finditer(event)
        end = event.index(b'"', first.end())
        if others or _ESCAPED_LETTER in event[: first.start()] + event[end:]:
            return
        self.kind = "content" if first[1] == b"content" else "reasoning_content"
        self._head = start + event[: first.end()]
        self._learn_rest(event, end)
        self.is_known = True

    def forget(self) -> None:
        """Forgets the event: another one may have changed what it means."""
        if self.is_known:
            self.is_known = False
            self._useless = 0 if self._matches >= _USEFUL else self._useless + 1
            self._matches = 0
            self.may_learn = self._useless < _MAX_USELESS

    def next_end(self, data: bytes, at: int) -> int:
        """Returns the end of the event at a position; the end of the data if it is incomplete, or need not be alone."""
        if not self.may_learn:
            return len(data)
        stop = data.find(self._end, at)
        if stop < 0:
            other = _CRLF if self._end is _LF else _LF
            stop = data.find(other, at)
            if stop < 0:
                return len(data)
            self._end = other
        return stop + len(self._end)

    def text_of(self, data: bytes) -> str | None:
        """Returns the text of bytes that are one event like the one that was learned; None for others.

        Of the bytes of several events, what is between head and tail is too long or no JSON string. An empty or long
        text is left to `take`.
        """
        if not (data.startswith(self._head) and data.endswith(self._after_text)):
            return None
        text = data[len(self._head) : -len(self._after_text)]
        if self._after_padding:
            text, _, padding = text.partition(self._tail)
            if not padding.isalnum():
                return None
        if not 0 < len(text) <= MAX_TEXT_SIZE:
            return None
        try:
            found: str = orjson.loads(b'"%b"' % text)
        except ValueError:
            return None
        self._matches += 1
        return found

    def take(self, data: bytes, at: int) -> tuple[str, int]:
        """Reads the events at a position that are like the one that was learned.

        Args:
            data: The bytes of a stream.
            at: The beginning of an event in them.

        Returns:
            The text of the events, and the position after them.

        Raises:
            ValueError: A text is not the rest of a JSON string.
        """
        texts, at = self._take_padded(data, at) if self._after_padding else self._take_equal(data, at)
        self._matches += len(texts)
        joined = b"".join(texts)
        if b"\\" in joined and len(texts) > 1:
            return "".join([orjson.loads(b'"%b"' % text) for text in texts]), at
        text: str = orjson.loads(b'"%b"' % joined)
        return text, at

    def _learn_rest(self, event: bytes, end: int) -> None:
        """Learns what follows the text, which ends at `end`."""
        padding = _PADDING.search(event, end)
        stop = len(event) if padding is None else padding.end()
        self._tail = event[end:stop]
        self._after_padding = b"" if padding is None else event[event.index(b'"', stop) :]
        self._after_text = (self._after_padding or self._tail) + self._end

    def _take_equal(self, data: bytes, at: int) -> tuple[list[bytes], int]:
        head, tail, end = self._head, self._tail, self._end
        texts: list[bytes] = []
        if len(data) - at > 2 * (len(head) + len(tail)) and data.startswith(head, at):
            texts, at = self._take_run(data, at)
        while data.startswith(head, at) and (stop := data.find(end, at)) >= 0:
            first, last = at + len(head), stop - len(tail)
            if first > last or not data.startswith(tail, last):
                break
            texts.append(data[first:last])
            at = stop + len(end)
        return texts, at

    def _take_run(self, data: bytes, at: int) -> tuple[list[bytes], int]:
        """Reads all events of a run but the last, if nothing else is among them.

        It cuts all of them at their places at once, and proves by their join that these were right, which takes half
        the time of a search in each. `split` at the bytes between two texts prepares that long separator at each match.
        """
        between = self._tail + self._end + self._head  # the bytes between two texts
        last = data.rfind(between, at)
        if last < 0:
            return [], at
        stop = last + len(self._tail) + len(self._end)
        first, behind = len(self._head), 1 - len(self._tail) - len(self._end) // 2
        texts = [event[first:behind] for event in data[at:stop].split(b"\n")[:-1:2]]
        joined = between.join(texts)
        are_all = len(joined) == last - at - first and data.startswith(joined, at + first)
        return (texts, stop) if are_all else ([], at)

    def _take_padded(self, data: bytes, at: int) -> tuple[list[bytes], int]:
        head, between, after, end = self._head, self._tail, self._after_padding, self._end
        texts: list[bytes] = []
        while data.startswith(head, at) and (stop := data.find(end, at)) >= 0:
            text, found, padding = data[at + len(head) : stop].partition(between)
            # A backslash before it makes the quote at the start of `between` a part of the text.
            if not found or text.endswith(b"\\") or not padding.endswith(after):
                break
            if not padding[: -len(after)].isalnum():
                break
            texts.append(text)
            at = stop + len(end)
        return texts, at
