"""The comparison of text that arrives in pieces with an expected prefix."""


class PrefixMatcher:
    """Compares pieces of a text, in order, with a prefix.

    Attributes:
        remaining: Characters of the prefix that no piece has matched yet.
    """

    __slots__ = ("_prefix", "remaining")

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.remaining = len(prefix)

    @property
    def matched(self) -> str:
        """The part of the prefix that the pieces have matched."""
        return self._prefix[: len(self._prefix) - self.remaining]

    def matches(self, piece: str) -> bool:
        """Reports whether `piece` is the next part of the prefix, beyond whose end it may extend."""
        return self._prefix.startswith(piece[: self.remaining], len(self._prefix) - self.remaining)

    def advance(self, piece: str) -> None:
        """Counts a piece that matches."""
        self.remaining -= min(len(piece), self.remaining)
