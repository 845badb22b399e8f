"""Plain text: in which chunks it is found, and the chunks that it stands for."""

from collections.abc import Sequence
from functools import cache, lru_cache

from parley.core.messages import wire
from parley.core.ports.plain_text import MAX_TEXT_SIZE, Batch, PlainText, StreamPart, TextKind
from parley.v1.chat_completions_pb2 import ChatCompletionChunk
from parley.v1.message_pb2 import ChunkChoice, Delta

_SEQUENCE = wire.tag(ChatCompletionChunk, "sequence")


def plain_text(chunk: ChatCompletionChunk) -> PlainText | None:
    """Returns a chunk of a backend as plain text if it has nothing else; None for any other chunk.

    The serialized size tells, because every other field adds to it. Listing the fields of the three messages takes
    several times as long.
    """
    choices = chunk.choices
    if len(choices) != 1:
        return None
    choice = choices[0]
    kind: TextKind = "content"
    text = choice.delta.content
    if not text:
        kind = "reasoning_content"
        text = choice.delta.reasoning_content
    size = len(text) if text.isascii() else len(text.encode())
    if not 0 < size <= MAX_TEXT_SIZE or chunk.ByteSize() != size + len(_before(kind, size)):
        return None
    return PlainText(kind, text, size) if choice.HasField("index") and choice.index == 0 else None


def chunk_bytes(text: PlainText) -> bytes:
    """Returns the serialized chunk."""
    before = _before(text.kind, text.size)
    if text.sequence is None:
        return before + text.text.encode()
    return b"%b%b%b%b" % (text.stamp, before, text.text.encode(), _sequence(text.sequence))


def chunk_size(text: PlainText) -> int:
    """Returns the size of the chunk in bytes, before StreamShaper."""
    return text.size + len(_before(text.kind, text.size))


def as_chunk(part: StreamPart) -> ChatCompletionChunk:
    """Returns a part of a stream as a chunk."""
    return ChatCompletionChunk.FromString(chunk_bytes(part)) if isinstance(part, PlainText) else part


def parts(batch: Batch) -> Sequence[StreamPart]:
    """Returns the parts of a batch."""
    return (batch,) if isinstance(batch, PlainText) else batch


@lru_cache(1024)  # streams begin with the same numbers
def _sequence(number: int) -> bytes:
    return _SEQUENCE + wire.varint(number)


@cache  # two kinds of at most MAX_TEXT_SIZE bytes
def _before(kind: TextKind, size: int) -> bytes:
    """Returns what is before a text of this size in a serialized chunk; nothing is after it."""
    chunk = ChatCompletionChunk(choices=[ChunkChoice(index=0, delta=Delta())])
    setattr(chunk.choices[0].delta, kind, "." * size)
    return chunk.SerializeToString()[:-size]
