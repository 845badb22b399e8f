"""Roles of messages."""

from parley.v1.message_pb2 import Message

_SYSTEM = frozenset({"system", "developer"})


def is_system(message: Message) -> bool:
    """Tells whether this is a system or developer message, which is never trimmed."""
    return message.role in _SYSTEM
