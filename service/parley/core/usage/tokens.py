"""Estimates of tokens, for texts whose tokens no backend has counted."""

from google.protobuf.struct_pb2 import Value

from parley.v1.message_pb2 import Message

BYTES_A_TOKEN = 4
"""Of text: a rule of thumb, until the backend tells."""
_TOKENS_A_MESSAGE = 4
_WEIGHT_OF_A_MEDIUM = 1000 * BYTES_A_TOKEN  # an image, a sound or a file: its own bytes say little about what it costs
_MEDIA = frozenset({"image_url", "input_audio", "file"})


def tokens(message: Message) -> int:
    """Estimates what a message costs a model: a token for four bytes of text, a thousand for an image or a sound."""
    texts = [message.reasoning_content, message.refusal, message.function_call.name, message.function_call.arguments]
    for call in message.tool_calls:
        texts += (call.function.name, call.function.arguments, call.custom.name, call.custom.input)
    size = weight(message.content) + len("".join(texts).encode())
    return _TOKENS_A_MESSAGE + size // BYTES_A_TOKEN


def weight(content: Value) -> int:
    """Estimates a content in bytes of text: an image, a sound or a file weighs as much as a thousand tokens of it."""
    if not content.HasField("list_value"):
        return len(content.string_value.encode())
    size = 0
    for part in content.list_value.values:
        fields = part.struct_value.fields
        size += len(fields["text"].string_value.encode()) if "text" in fields else 0
        size += _WEIGHT_OF_A_MEDIUM * any(kind in fields for kind in _MEDIA)
    return size
