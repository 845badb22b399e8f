"""The beginning of an answer that a server repeats where it was asked to go on from it.

Measured: llama.cpp repeats it in whole answers and not in streams; Mistral's documents show it repeated, DeepSeek's and
vLLM's do not. So whatever begins with all of it is taken to repeat it.
"""


class Echo:
    """Takes `said`, which the caller has already got, off the beginning of a text that comes in pieces."""

    __slots__ = ("_held", "_said")

    def __init__(self, said: str) -> None:
        self._said = said
        self._held = ""

    def strip(self, piece: str) -> str:
        """Returns what is new for certain. What may turn out to be a repetition is held back."""
        if not self._said:
            return piece
        text = self._held + piece
        if self._said.startswith(text) and text != self._said:
            self._held = text
            return ""
        fresh = text.removeprefix(self._said)
        self._said = self._held = ""
        return fresh

    def rest(self) -> str:
        """Returns what was held back, at the end of the answer: it was no repetition."""
        held, self._said, self._held = self._held, "", ""
        return held
