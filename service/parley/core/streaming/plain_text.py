"""The shape of nearly every chunk of a stream: a short text of one kind of the first choice, and nothing else."""

from typing import Literal

from parley.v1.chat_completions_pb2 import ChatCompletionChunk
from parley.v1.message_pb2 import ChunkChoice, Delta

Kind = Literal["content", "reasoning_content"]

_MAX_SIZE = 100  # bytes; with longer texts the lengths of the messages around them take more bytes


class PlainText(list[ChatCompletionChunk]):
    """A batch of one chunk of plain text, which has the fields of the stream besides. `plain_text` makes it.

    Attributes:
        kind: The field of the delta that has the text.
        text: The text.
        size: Its length in bytes.
    """

    __slots__ = ("kind", "size", "text")

    kind: Kind
    text: str
    size: int


def plain_text(chunk: ChatCompletionChunk) -> PlainText | None:
    """Returns a chunk of a backend as plain text if it has nothing else; None for any other chunk.

    The serialized size tells, because every other field adds to it. Listing the fields of the three messages takes
    several times as long.
    """
    choices = chunk.choices
    if len(choices) != 1:
        return None
    choice = choices[0]
    kind: Kind = "content"
    text = choice.delta.content
    if not text:
        kind = "reasoning_content"
        text = choice.delta.reasoning_content
    size = len(text) if text.isascii() else len(text.encode())
    is_plain = 0 < size <= _MAX_SIZE and chunk.ByteSize() == size + _FRAMINGS[kind]
    if not is_plain or not choice.HasField("index") or choice.index != 0:
        return None
    batch = PlainText((chunk,))
    batch.kind, batch.text, batch.size = kind, text, size
    return batch


def _framing(delta: Delta) -> int:
    """Returns how many bytes a chunk has besides the text of its delta, which is one byte long."""
    return ChatCompletionChunk(choices=[ChunkChoice(index=0, delta=delta)]).ByteSize() - 1


_FRAMINGS = {
    "content": _framing(Delta(content=".")),
    "reasoning_content": _framing(Delta(reasoning_content=".")),
}
