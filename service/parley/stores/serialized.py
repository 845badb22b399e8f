"""Messages in the form in which they are stored."""

from collections.abc import Sequence
from typing import NamedTuple

from parley.core.messages.roles import is_system
from parley.core.usage.tokens import message_tokens
from parley.v1.message_pb2 import Message


class Serialized(NamedTuple):
    """Messages in stored form.

    Attributes:
        rows: Each serialized message, and whether it is a system message.
        size: The number, the estimated tokens and the serialized bytes of the messages without system messages.
        bytes: The serialized bytes of all messages.
    """

    rows: Sequence[tuple[bytes, bool]]
    size: tuple[int, int, int]
    bytes: int


def serialize(messages: Sequence[Message]) -> Serialized:
    """Serializes messages, which for many messages takes longer than the transaction and does not need it."""
    rows = []
    counted = tokens = size = of_system = 0
    for message in messages:
        data, system = message.SerializeToString(), is_system(message)
        rows.append((data, system))
        if system:
            of_system += len(data)
        else:
            counted += 1
            tokens += message_tokens(message)
            size += len(data)
    return Serialized(rows, (counted, tokens, size), size + of_system)
