"""Parses the text of `reasoning_details`, which MiniMax and OpenRouter send.

Each detail is an object of the type `reasoning.text` (`text`, `signature`), `reasoning.summary` (`summary`) or
`reasoning.encrypted` (`data`). OpenRouter repeats the text in `reasoning`; MiniMax sends it in the details only.
Sources: OpenRouter's documentation, reasoning tokens; MiniMax's OpenAI-compatible API, `reasoning_split`.
"""

from collections.abc import Iterator
from typing import Any

DETAILS = "reasoning_details"
_TEXTS = ("text", "summary")


class DetailsReader:
    """Parses the details of one choice, from one message or from many deltas.

    MiniMax documents cumulative deltas but sends incremental ones (MiniMax-AI/MiniMax-M2#95). Both work: deltas
    are cumulative if the second starts with the first.
    """

    def __init__(self) -> None:
        self._text = ""
        self._repeats: bool | None = None  # whether deltas are cumulative; None until known

    def read(self, details: Any) -> str:
        """Returns the new text; "" if the details have none or are malformed."""
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
