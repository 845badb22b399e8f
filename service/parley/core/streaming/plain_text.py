"""The shape of nearly every chunk of a stream: a short text of the first choice, and nothing else."""

from parley.v1.chat_completions_pb2 import ChatCompletionChunk
from parley.v1.message_pb2 import ChunkChoice, Delta

_FRAMING = ChatCompletionChunk(choices=[ChunkChoice(index=0, delta=Delta(content="."))]).ByteSize() - 1
_MAX_SIZE = 100  # bytes; with longer texts the lengths of the messages around them take more bytes


class PlainText(list[ChatCompletionChunk]):
    """A batch of one chunk of plain text, which has the fields of the stream besides.

    Attributes:
        text: The text.
    """

    __slots__ = ("text",)

    def __init__(self, chunk: ChatCompletionChunk, text: str) -> None:
        super().__init__((chunk,))
        self.text = text


def plain_text(chunk: ChatCompletionChunk) -> str:
    """Returns the text of a chunk of a backend that has nothing else than it; an empty string for any other chunk.

    The serialized size tells, because every other field adds to it. Listing the fields of the three messages takes
    several times as long.
    """
    choices = chunk.choices
    if len(choices) != 1:
        return ""
    choice = choices[0]
    text = choice.delta.content
    size = len(text) if text.isascii() else len(text.encode())
    is_plain = 0 < size <= _MAX_SIZE and chunk.ByteSize() == size + _FRAMING
    return text if is_plain and choice.HasField("index") and choice.index == 0 else ""
