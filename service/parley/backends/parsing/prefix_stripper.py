"""The beginning of an answer that a server repeats where it was asked to go on from it.

Measured: llama.cpp repeats it in whole answers and not in streams; Mistral's documents show it repeated, DeepSeek's and
vLLM's do not. So whatever begins with all of it is taken to repeat it.
"""

from collections.abc import Sequence

from parley.v1.message_pb2 import TokenLogprob


class Echo:
    """Takes `said`, which the caller has already got, off the beginning of a text that comes in pieces.

    `repeated` is what was taken off: `said`, or nothing.
    """

    __slots__ = ("_place", "_said", "repeated")

    def __init__(self, said: str) -> None:
        self.repeated = ""
        self._said = said
        self._place = 0  # how much of it is held back

    @property
    def is_open(self) -> bool:
        """Tells whether what comes may still turn out to be a repetition."""
        return bool(self._said)

    @property
    def holds(self) -> bool:
        """Tells whether anything is held back."""
        return self._place > 0

    def strip(self, piece: str) -> str:
        """Returns what is new for certain. What may turn out to be a repetition is held back."""
        if not self._said:
            return piece
        said, place = self._said, self._place
        left = len(said) - place
        fits = said.startswith(piece[:left], place)
        if fits and len(piece) < left:
            self._place += len(piece)
            return ""
        self.repeated = said if fits else ""
        self._said, self._place = "", 0
        return piece[left:] if fits else said[:place] + piece

    def rest(self) -> str:
        """Returns what was held back, at the end of the answer: it was no repetition."""
        held, self._said, self._place = self._said[: self._place], "", 0
        return held


def new_tokens(tokens: Sequence[TokenLogprob], repeated: str) -> Sequence[TokenLogprob]:
    """Returns the tokens without those that spell what was repeated; all of them where no first ones do."""
    rest = repeated.encode()
    for place, token in enumerate(tokens):
        if not rest:
            return tokens[place:]
        spelt = bytes(token.bytes) or token.token.encode()
        if not rest.startswith(spelt):
            return tokens
        rest = rest.removeprefix(spelt)
    return tokens if rest else []
