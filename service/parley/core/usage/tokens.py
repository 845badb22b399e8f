"""Estimates of tokens, for text whose tokens no backend has counted.

Every estimate divides bytes of UTF-8 text by four. What is measured differs by purpose: `message_tokens` is the cost of
a message in a prompt, `output_size` is the text that a model generated, `charged_size` is what rate limits reserve.
"""

from google.protobuf.struct_pb2 import Value

from parley.v1.message_pb2 import Delta, Message

_BYTES_PER_TOKEN = 4  # a rule of thumb for text in English; other languages and code have fewer bytes per token
_TOKENS_PER_MESSAGE = 4  # role and separators of a chat template
_MEDIUM_SIZE = 1000 * _BYTES_PER_TOKEN  # an image, a sound or a file: its encoded bytes do not indicate its cost
_MEDIA = frozenset({"image_url", "input_audio", "file"})


def estimate_tokens(size: int) -> int:
    """Estimates the tokens of `size` bytes of text, rounded up, so that any text costs at least one token."""
    return -(-size // _BYTES_PER_TOKEN)


def estimate_full_tokens(size: int) -> int:
    """Estimates the tokens of `size` bytes of text, rounded down.

    Used where a high estimate would shorten an answer or drop history.
    """
    return size // _BYTES_PER_TOKEN


def message_tokens(message: Message) -> int:
    """Estimates the tokens of a message in a prompt.

    Text, reasoning, refusal and calls count by their bytes, an image, a sound or a file counts as a thousand tokens,
    and every message has an overhead of four tokens.
    """
    texts = [message.reasoning_content, message.refusal, message.function_call.name, message.function_call.arguments]
    for call in message.tool_calls:
        texts += (call.function.name, call.function.arguments, call.custom.name, call.custom.input)
    size = _content_size(message.content) + len("".join(texts).encode())
    return _TOKENS_PER_MESSAGE + estimate_full_tokens(size)


def output_size(message: Message | Delta) -> int:
    """Returns the bytes of text that a model generated for a message or a delta."""
    content = message.content if isinstance(message, Delta) else message.content.string_value
    texts = [content, message.reasoning_content, message.refusal, message.audio.transcript]
    texts += [message.function_call.name, message.function_call.arguments]
    for call in message.tool_calls:
        texts += [call.function.name, call.function.arguments, call.custom.name, call.custom.input]
    return sum(len(text.encode()) for text in texts)


def charged_size(message: Message | Delta) -> int:
    """Returns the bytes that rate limits count for a message or a delta.

    Unlike `output_size`, it counts calls as serialized, ids included, and media; it does not count transcripts.
    """
    content = message.content
    size = len(content.encode()) if isinstance(content, str) else _content_size(content)
    calls = sum(call.ByteSize() for call in message.tool_calls) + message.function_call.ByteSize()
    return size + len(f"{message.refusal}{message.reasoning_content}".encode()) + calls


def _content_size(content: Value) -> int:
    """Returns the bytes of text of a content; an image, a sound or a file counts as a thousand tokens of text."""
    if not content.HasField("list_value"):
        return len(content.string_value.encode())
    size = 0
    for part in content.list_value.values:
        fields = part.struct_value.fields
        size += len(fields["text"].string_value.encode()) if "text" in fields else 0
        size += _MEDIUM_SIZE * any(kind in fields for kind in _MEDIA)
    return size
