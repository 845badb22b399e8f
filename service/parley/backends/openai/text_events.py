"""Fast path for the events of a stream that differ in nothing but their text, as nearly all do."""

import re

import orjson

_START, _END = b"data: ", b"\n\n"
_CONTENT = re.compile(rb'"content"\s*:\s*"')
_MAX_USELESS = 8  # servers whose events differ in more than the text (OpenAI pads them) gain nothing
_USEFUL = 4  # events that pay for the search of the text in one


class TextEvents:
    """Recognises events whose bytes equal those of an earlier text event before and after the text.

    Such an event means the same except for the text, which is the rest of a JSON string. So only that string is parsed,
    and the texts of a run of events are parsed as one.

    Attributes:
        is_known: Whether an event was learned.
        may_learn: Whether another event may be learned.
    """

    def __init__(self) -> None:
        self.is_known = False
        self.may_learn = True
        self._head = self._tail = b""
        self._useless = 0  # events learned in vain since the latest useful one
        self._matches = 0  # of the event that was learned

    def learn(self, received: bytes, event: bytes) -> None:
        """Learns a text event, which is valid JSON with one choice whose delta has only `content`.

        Args:
            received: The bytes that were received.
            event: The data of the event in them.
        """
        self.forget()
        if not self.may_learn or b"\\" in event or received != _START + event + _END:
            return
        # Without a backslash no JSON string contains a quote: a match is a key, and the next quote ends its text.
        first, *others = _CONTENT.finditer(event)
        if not others:
            end = event.index(b'"', first.end())
            self._head, self._tail = _START + event[: first.end()], event[end:]
            self.is_known = True

    def forget(self) -> None:
        """Forgets the event: another one may have changed what it means."""
        if self.is_known:
            self.is_known = False
            self._useless = 0 if self._matches >= _USEFUL else self._useless + 1
            self._matches = 0
            self.may_learn = self._useless < _MAX_USELESS

    def take(self, data: bytes, at: int) -> tuple[str, int]:
        """Reads the events at a position that are like the one that was learned.

        Args:
            data: The bytes of a stream.
            at: The beginning of an event in them.

        Returns:
            The text of the events, and the position after them.
        """
        head, tail = self._head, self._tail
        texts: list[bytes] = []
        # `split` at the bytes between two texts is slower: it prepares a long separator at each match.
        while data.startswith(head, at) and (end := data.find(_END, at)) >= 0:
            start, stop = at + len(head), end - len(tail)
            if start > stop or not data.startswith(tail, stop):
                break
            texts.append(data[start:stop])
            at = end + len(_END)
        self._matches += len(texts)
        return (_joined(texts) if texts else ""), at


def _joined(texts: list[bytes]) -> str:
    """Returns the text of JSON strings without their quotes. Raises ValueError if one is not valid."""
    joined = b"".join(texts)
    if b"\\" not in joined:
        text: str = orjson.loads(b'"%s"' % joined)
        return text
    return "".join([orjson.loads(b'"%s"' % text) for text in texts])
