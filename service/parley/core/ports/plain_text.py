"""Nearly every part of a stream: a short text of one kind of the first choice, and nothing else."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

from parley.v1.chat_completions_pb2 import ChatCompletionChunk

TextKind = Literal["content", "reasoning_content"]

MAX_TEXT_SIZE = 100  # bytes; what precedes a text in its chunk is cached for each size


class PlainText:
    """A text in place of the chunk that has nothing else: to make and read messages takes several times as long.

    Attributes:
        kind: The field of the delta that has the text.
        text: The text.
        size: Its length in bytes, at most MAX_TEXT_SIZE.
        stamp: The serialized fields that all chunks of the stream have; empty before StreamShaper.
        sequence: The number of the chunk in the stream; None before StreamShaper.
    """

    __slots__ = ("kind", "sequence", "size", "stamp", "text")

    def __init__(self, kind: TextKind, text: str, size: int) -> None:
        self.kind: TextKind = kind
        self.text = text
        self.size = size
        self.stamp = b""
        self.sequence: int | None = None


StreamPart: TypeAlias = ChatCompletionChunk | PlainText
Batch: TypeAlias = Sequence[ChatCompletionChunk] | PlainText
"""What is sent together: chunks, or one plain text."""
