"""Removal of the beginning of an answer that a server repeats when it continues a prefill.

llama.cpp repeats it in non-streaming answers, not in streams (measured). Mistral's documentation shows it repeated,
those of DeepSeek and vLLM do not. So an answer that begins with the complete prefill is regarded as repeating it.
"""

from collections.abc import Sequence

from parley.core.streaming.prefix_matcher import PrefixMatcher
from parley.v1.message_pb2 import TokenLogprob


class PrefixStripper:
    """Removes a prefix, which must not be empty, from the beginning of a text that arrives in pieces.

    A text that does not begin with the prefix passes unchanged; core.streaming.prefix.SkipPrefix rejects it.

    Attributes:
        repeated: The prefix if it was removed, else empty.
    """

    __slots__ = ("_matcher", "_prefix", "repeated")

    def __init__(self, prefix: str) -> None:
        self.repeated = ""
        self._prefix = prefix
        self._matcher: PrefixMatcher | None = PrefixMatcher(prefix)

    @property
    def may_repeat(self) -> bool:
        """Whether later pieces may still complete a repetition."""
        return self._matcher is not None

    @property
    def has_buffered(self) -> bool:
        """Whether text is buffered."""
        return self._matcher is not None and self._matcher.remaining < len(self._prefix)

    def strip(self, piece: str) -> str:
        """Returns the text that is certainly new; text that may belong to a repetition is buffered."""
        matcher = self._matcher
        if matcher is None:
            return piece
        is_match = matcher.matches(piece)
        if is_match and len(piece) < matcher.remaining:
            matcher.advance(piece)
            return ""
        self._matcher = None
        if is_match:
            self.repeated = self._prefix
            return piece[matcher.remaining :]
        return matcher.matched + piece

    def flush(self) -> str:
        """Returns the buffered text at the end of the answer: it is no repetition."""
        buffered = self._matcher.matched if self._matcher else ""
        self._matcher = None
        return buffered


def new_tokens(tokens: Sequence[TokenLogprob], repeated: str) -> Sequence[TokenLogprob]:
    """Returns the tokens after those that spell `repeated`; all tokens if the first ones do not spell it.

    SkipPrefix removes tokens by their length alone, as it compares the text itself.
    """
    rest = repeated.encode()
    for index, token in enumerate(tokens):
        if not rest:
            return tokens[index:]
        spelled = bytes(token.bytes) or token.token.encode()
        if not rest.startswith(spelled):
            return tokens
        rest = rest.removeprefix(spelled)
    return tokens if rest else []
