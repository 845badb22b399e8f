"""The text of `reasoning_details`, which MiniMax and OpenRouter send.

Each detail is an object of the type `reasoning.text` (`text`, `signature`), `reasoning.summary` (`summary`) or
`reasoning.encrypted` (`data`). OpenRouter repeats the text in `reasoning`; MiniMax sends it in the details alone.
(OpenRouter's documentation, reasoning tokens; MiniMax's of its OpenAI-compatible API, `reasoning_split`.)
"""

from collections.abc import Iterator
from typing import Any

DETAILS = "reasoning_details"
_TEXTS = ("text", "summary")


class DetailsReader:
    """Reads the details of one choice, from one message or from many deltas.

    MiniMax documents that each delta has all the text so far, and sends only what is new (MiniMax-AI/MiniMax-M2#95).
    Both are read: a text that begins with the whole text before it repeats that text.
    """

    def __init__(self) -> None:
        self._text = ""
        self._repeats: bool | None = None  # None: not known yet

    def read(self, details: Any) -> str:
        """Returns the text that is new; "" for what has none or another shape."""
        return "".join(map(self._new, _texts(details)))

    def _new(self, text: str) -> str:
        if self._repeats is False:
            return text
        known_text, self._text = self._text, text
        if self._repeats is None and known_text:
            self._repeats = len(text) > len(known_text) and text.startswith(known_text)
        return text[len(known_text) :] if self._repeats and text.startswith(known_text) else text


def _texts(details: Any) -> Iterator[str]:
    for detail in details if isinstance(details, list) else ():
        if isinstance(detail, dict):
            found = next((detail[name] for name in _TEXTS if detail.get(name)), None)
            if isinstance(found, str):
                yield found
