"""Messages in the form in which they are stored."""

from collections.abc import Sequence
from typing import NamedTuple

from parley.core.messages.roles import is_system
from parley.stores import records
from parley.v1.message_pb2 import Message


class Serialized(NamedTuple):
    """Messages in stored form.

    Attributes:
        rows: Each serialized message, and whether it is a system message.
        size: See `records.size`.
    """

    rows: list[tuple[bytes, bool]]
    size: tuple[int, int, int]

    @property
    def bytes(self) -> int:
        """The bytes of all messages."""
        return sum(len(message) for message, _ in self.rows)


def serialize(messages: Sequence[Message]) -> Serialized:
    """Serializes messages, which for many messages takes longer than the transaction and does not need it."""
    rows = [(message.SerializeToString(), is_system(message)) for message in messages]
    return Serialized(rows, records.size(messages))
