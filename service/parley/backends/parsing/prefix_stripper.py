"""The beginning of an answer that a server repeats where it was asked to go on from it.

Measured: llama.cpp repeats it in whole answers and not in streams; Mistral's documents show it repeated, DeepSeek's and
vLLM's do not. So whatever begins with all of it is taken to repeat it.
"""

from collections.abc import Sequence

from parley.v1.message_pb2 import TokenLogprob


class PrefixStripper:
    """Takes `prefix`, which the caller has already got, off the beginning of a text that comes in pieces.

    `repeated` is what was taken off: `prefix`, or nothing.
    """

    __slots__ = ("_place", "_prefix", "repeated")

    def __init__(self, prefix: str) -> None:
        self.repeated = ""
        self._prefix = prefix
        self._place = 0  # how much of it is held back

    @property
    def may_repeat(self) -> bool:
        """Tells whether what comes may still turn out to be a repetition."""
        return bool(self._prefix)

    @property
    def has_buffered(self) -> bool:
        """Tells whether anything is held back."""
        return self._place > 0

    def strip(self, piece: str) -> str:
        """Returns what is new for certain. What may turn out to be a repetition is held back."""
        if not self._prefix:
            return piece
        prefix, place = self._prefix, self._place
        remaining = len(prefix) - place
        fits = prefix.startswith(piece[:remaining], place)
        if fits and len(piece) < remaining:
            self._place += len(piece)
            return ""
        self.repeated = prefix if fits else ""
        self._prefix, self._place = "", 0
        return piece[remaining:] if fits else prefix[:place] + piece

    def flush(self) -> str:
        """Returns what was held back, at the end of the answer: it was no repetition."""
        buffered, self._prefix, self._place = self._prefix[: self._place], "", 0
        return buffered


def new_tokens(tokens: Sequence[TokenLogprob], repeated: str) -> Sequence[TokenLogprob]:
    """Returns the tokens without those that spell what was repeated; all of them where no first ones do."""
    rest = repeated.encode()
    for place, token in enumerate(tokens):
        if not rest:
            return tokens[place:]
        spelled = bytes(token.bytes) or token.token.encode()
        if not rest.startswith(spelled):
            return tokens
        rest = rest.removeprefix(spelled)
    return tokens if rest else []
